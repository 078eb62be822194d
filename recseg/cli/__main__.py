"""`python -m recseg.cli`, as `torchrun -m recseg.cli` starts it."""

import sys

from recseg.cli.main import main

sys.exit(main())
