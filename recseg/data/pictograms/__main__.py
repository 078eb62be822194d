"""`python -m recseg.data.pictograms FOLDER`: how the committed set was made."""

import sys
from pathlib import Path

from recseg.data.pictograms import write_embedded

write_embedded(Path(sys.argv[1]))
