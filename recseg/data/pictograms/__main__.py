"""`python -m recseg.data.pictograms FOLDER` writes the committed set."""

import sys
from pathlib import Path

from recseg.data.pictograms import write_embedded

write_embedded(Path(sys.argv[1]))
