"""Run the chapters in parallel, one per core: `python book/run_chapters.py`, before the book is rendered.

Their outputs go to jupyter-cache's folder, where Jupyter Book finds them. Chapters that compare times are left to
Jupyter Book, which runs one at a time.
"""

import logging
import sys
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor

BOOK = Path(__file__).parent
CACHE = BOOK.parent / "_build/.jupyter_cache"  # where Jupyter Book looks by default
COMPARE_TIMES = {"08_gpu_training", "14_output_space_and_scale"}
SECONDS = 300  # per cell, as in _config.yml


def main() -> int:
    """Run them; 1 if a chapter fails."""
    cache = get_cache(CACHE)
    for chapter in sorted(BOOK.glob("*.ipynb")):
        if chapter.stem not in COMPARE_TIMES:
            cache.add_nb_to_project(str(chapter))
    logger = logging.getLogger("chapters")
    logger.setLevel(logging.INFO)
    ran = load_executor("local-parallel", cache, logger).run_and_cache(timeout=SECONDS)
    failed = [*ran.excepted, *ran.errored]
    for chapter in failed:
        print(cache.get_project_record(chapter).traceback or "", f"{chapter} failed", sep="\n", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
