"""Assets that are not made by any page: KaTeX for formulas, icons, and the animation at the top of the index.

`make book` runs it before the pages are rendered. Files go to book/_live/site, which the book copies and git ignores.
Without npm the pages show formulas as TeX source; without scikit-image the index shows a drawn image.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pydata_sphinx_theme
from fontTools import subset
from live import HERE, fetch
from PIL import Image

import recseg
from recseg.book.photographs import photographs, side_by_side
from recseg.data import open_dataset
from recseg.viz.plotting import gif_frames

SITE = HERE / "site"
DRAWN = 12  # image of the embedded set with two classes
COLOURS = ((255, 0, 170), (0, 190, 255), (255, 210, 0))  # VOC's are hard to see on a photograph


def write_formulas(folder: Path) -> None:
    """KaTeX, in the version of package-lock.json."""
    fetch()
    package = HERE / "node_modules" / "katex" / "dist"
    others = shutil.ignore_patterns("*.ttf", "*.woff")  # for old browsers
    shutil.copytree(package / "fonts", folder / "fonts", ignore=others, dirs_exist_ok=True)
    for file in ("katex.min.js", "katex.min.css"):
        shutil.copyfile(package / file, folder / file)


def write_icons(path: Path) -> None:
    """Subset the theme's icon font to the glyphs that _static/icons.css uses: 4 kB instead of 300."""
    font = next(Path(pydata_sphinx_theme.__file__).parent.rglob("fa-solid-900.ttf"))
    style = Path(__file__).parent / "_static" / "icons.css"
    codes = ",".join(re.findall(r"\\(f\w{3})", style.read_text(encoding="utf-8")))
    path.parent.mkdir(parents=True, exist_ok=True)
    subset.main([str(font), f"--unicodes={codes}", "--flavor=woff", f"--output-file={path}"])


def write_steps(folder: Path) -> None:
    """Animate the segmentation of an image step by step; its last frame is for readers who prefer no motion."""
    found = photographs()
    if found:
        image, name = side_by_side(found["motorcycle"], found["astronaut"]).image, "voc-recurrent"
    else:
        image, name = Image.fromarray(open_dataset("pictograms", "val").pixels(DRAWN)), "pictograms-recurrent"
    prediction = recseg.predict(image, recseg.load(name))
    palette = prediction.palette.copy()
    for step, colour in zip(prediction.steps, COLOURS, strict=False):
        palette[step.class_id] = colour
    frames = list(gif_frames(image, replace(prediction, palette=palette), side=800))
    folder.mkdir(parents=True, exist_ok=True)
    times = [900, *[1300] * (len(frames) - 2), 2500]  # ms
    frames[0].save(folder / "steps.webp", save_all=True, append_images=frames[1:], duration=times, loop=0, quality=80)
    frames[-1].save(folder / "steps.jpg", quality=85)


def main() -> None:
    write_icons(SITE / "front" / "icons.woff")
    write_steps(SITE / "front")
    try:
        write_formulas(SITE / "katex")
    except (subprocess.SubprocessError, OSError):
        print("formulas: npm could not fetch KaTeX; the pages will show TeX source", file=sys.stderr)


if __name__ == "__main__":
    main()
