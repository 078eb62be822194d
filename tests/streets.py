"""A data set that is nothing like VOC: street scenes of eleven classes, nearly all of them in every picture.

    python tests/streets.py DIR [IMAGES]

writes a folder in VOC's layout, with grey masks and its own classes.txt, to train on: `recseg train --data DIR`.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = (
    "sky", "building", "road", "pavement", "tree", "fence", "pole", "sign", "car", "pedestrian", "cyclist",
)  # fmt: skip
COLOURS = (
    (150, 190, 230), (140, 110, 95), (90, 90, 95), (160, 155, 150), (60, 120, 60), (130, 100, 60), (70, 70, 70),
    (210, 180, 40), (170, 40, 40), (60, 70, 150), (40, 150, 150),
)  # fmt: skip
WIDTH, HEIGHT = 128, 96


def scene(generator: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """A picture and its grey mask: 0 is unlabelled, k + 1 is `CLASSES[k]`."""
    picture, mask = Image.new("RGB", (WIDTH, HEIGHT), (120, 120, 120)), Image.new("L", (WIDTH, HEIGHT))
    light = generator.uniform(0.7, 1.2)

    def paint(name: str, shape: str, *box: float) -> None:
        index = CLASSES.index(name)
        colour = np.clip(light * (np.array(COLOURS[index]) + generator.normal(0, 18, 3)), 0, 255).astype(int)
        places = [round(value) for value in box]
        for image, fill in ((picture, tuple(colour.tolist())), (mask, index + 1)):
            getattr(ImageDraw.Draw(image), shape)(places, fill=fill)

    def chance(probability: float = 0.92) -> bool:
        return bool(generator.random() < probability)

    horizon = generator.uniform(38, 52)
    middle = generator.uniform(40, 88)
    paint("sky", "rectangle", 0, 0, WIDTH, horizon)
    left = 0.0
    while left < WIDTH and chance(0.95):
        right = left + generator.uniform(18, 50)
        if chance(0.7):
            paint("building", "rectangle", left, generator.uniform(6, 28), right, horizon)
        left = right
    paint("pavement", "rectangle", 0, horizon, WIDTH, HEIGHT)
    paint("road", "polygon", middle - 6, horizon, middle + 6, horizon, WIDTH + 10, HEIGHT, -10, HEIGHT)
    if chance():
        start = generator.uniform(0, 90)
        paint("fence", "rectangle", start, horizon - 7, start + generator.uniform(15, 40), horizon + 2)
    if chance():
        x = generator.uniform(5, 123)
        paint("tree", "ellipse", x - 11, horizon - 32, x + 11, horizon - 6)
        paint("tree", "rectangle", x - 2, horizon - 8, x + 2, horizon + 5)
    if chance():
        x = generator.uniform(5, 120)
        paint("pole", "rectangle", x, horizon - 34, x + 2, horizon + 8)
        if chance():
            paint("sign", "ellipse", x - 4, horizon - 38, x + 6, horizon - 28)
    for _ in range(int(generator.integers(0, 3))):
        x, y = generator.uniform(20, 108), generator.uniform(horizon + 10, 84)
        size = (y - horizon) / 3
        paint("car", "rectangle", x - 1.6 * size, y - size, x + 1.6 * size, y)
        paint("car", "rectangle", x - 0.9 * size, y - 1.6 * size, x + 0.9 * size, y - size)
    if chance():
        x, y = generator.uniform(4, 124), generator.uniform(horizon + 12, 92)
        paint("pedestrian", "rectangle", x - 2, y - 14, x + 2, y)
        paint("pedestrian", "ellipse", x - 3, y - 19, x + 3, y - 13)
    if chance(0.7):
        x, y = generator.uniform(10, 118), generator.uniform(horizon + 12, 90)
        for wheel in (-6, 6):
            paint("cyclist", "ellipse", x + wheel - 4, y - 8, x + wheel + 4, y)
        paint("cyclist", "polygon", x - 6, y - 6, x, y - 20, x + 6, y - 6)
    noise = generator.normal(0, 8, (HEIGHT, WIDTH, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)), mask


def write(root: Path, images: int, seed: int = 0) -> None:
    """Write `images` pictures; every fifth goes to val."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(("unlabelled", *CLASSES)) + "\n")
    names: dict[str, list[str]] = {"train": [], "val": []}
    for index in range(images):
        picture, mask = scene(np.random.default_rng((seed, index)))
        picture.save(root / "JPEGImages" / f"street_{index:04}.jpg", quality=92)
        mask.save(root / "SegmentationClass" / f"street_{index:04}.png")
        names["val" if index % 5 == 0 else "train"].append(f"street_{index:04}")
    for split, listed in names.items():
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(listed) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 500)
