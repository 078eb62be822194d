"""The embedded data set: pictograms of VOC's twenty classes, drawn from a seed."""

from recseg.data.pictograms.dataset import (
    TRAIN_SEED,
    VAL_SEED,
    VERSION,
    embedded_root,
    ensure_train,
    generate,
    write_dataset,
    write_embedded,
)

__all__ = [
    "TRAIN_SEED",
    "VAL_SEED",
    "VERSION",
    "embedded_root",
    "ensure_train",
    "generate",
    "write_dataset",
    "write_embedded",
]
