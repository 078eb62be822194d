"""Entry point for `python -m recseg.cli` and `torchrun -m recseg.cli`."""

import sys

from recseg.cli.main import main

sys.exit(main())
