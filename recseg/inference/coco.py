"""Predicted masks in COCO's format, which annotation tools import and pycocotools reads.

A mask is run-length encoded column by column, as alternating runs of pixels outside and inside the mask. The lengths
are written as text, five bits per character; from the fourth on, each as the difference from the last but one.
Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and `maskApi.c` of pycocotools.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recseg.classes import BACKGROUND, Legend
from recseg.inference.prediction import Prediction


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's compressed run-length code of a mask (H, W): `size` and `counts`."""
    column = mask.ravel(order="F")  # (H W,)
    ends = np.flatnonzero(column[1:] != column[:-1]) + 1
    runs = np.diff([0, *ends, len(column)]).tolist()
    if column[0]:  # the first run counts pixels outside
        runs.insert(0, 0)
    counts = "".join(_text(run - runs[index - 2] if index > 2 else run) for index, run in enumerate(runs))
    return {"size": list(mask.shape), "counts": counts}


def _text(number: int) -> str:
    signs = ""
    while True:
        number, part = number >> 5, number & 31
        more = number != (-1 if part & 16 else 0)  # the rest follows from the sign bit
        signs += chr(48 + part + 32 * more)
        if not more:
            return signs


class CocoFile:
    """A data set in COCO's format, filled image by image.

    Args:
        legend: of the network. A category's id is the value of its class in the masks of the training data.
    """

    def __init__(self, legend: Legend) -> None:
        pairs = list(zip(legend.values, legend.names, strict=True))[BACKGROUND + 1 :]
        self.categories = [{"id": value, "name": name} for value, name in pairs]
        self.ids = [category["id"] for category in self.categories]
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, file_name: str, found: Prediction) -> None:
        """Add an image and an annotation for each of its steps; masks of a recurrent network may overlap."""
        height, width = found.labels.shape
        image = len(self.images) + 1
        self.images.append({"id": image, "file_name": file_name, "width": width, "height": height})
        for step in found.steps:
            if not step.mask.any():
                continue
            rows, columns = (np.flatnonzero(step.mask.any(axis=axis)) for axis in (1, 0))
            left, top = int(columns[0]), int(rows[0])
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": image,
                    "category_id": self.ids[step.class_id - 1],
                    "segmentation": encode_mask(step.mask),
                    "area": int(step.mask.sum()),
                    "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
                    "iscrowd": 0,
                    "score": round(step.probability, 6),
                }
            )

    def to_dict(self) -> dict[str, Any]:
        """The whole data set, ready for JSON."""
        return {"images": self.images, "categories": self.categories, "annotations": self.annotations}
