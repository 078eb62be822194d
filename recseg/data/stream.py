"""An endless, shuffled, augmented stream of batches that can be entered at any step and is the same each time.

Sample k of the stream is drawn from the permutation of its epoch and augmented with a seed of its own, made from (seed,
epoch, index). So neither the number of workers nor an interruption changes what a training sees.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from recseg.data.folder import Sample, SegmentationFolder


@dataclass
class Batch:
    """Images (B, 3, S, S) uint8, labels (B, S, S) int64, and the ids they came from."""

    images: Tensor
    labels: Tensor
    ids: list[str]


class StreamSampler(Sampler[list[tuple[int, int]]]):
    """(epoch, index) pairs of each batch from step `start` on, without end; of each batch, those in `part`."""

    def __init__(self, size: int, batch_size: int, seed: int, start: int = 0, part: range | None = None) -> None:
        self.size, self.batch_size, self.seed, self.start = size, batch_size, seed, start
        self.part = range(batch_size) if part is None else part

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        position = self.start * self.batch_size
        epoch, order = -1, np.empty(0, dtype=np.int64)
        while True:
            batch = []
            for place in (position + offset for offset in self.part):
                if place // self.size != epoch:
                    epoch = place // self.size
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
                batch.append((epoch, int(order[place % self.size])))
            yield batch
            position += self.batch_size


class _Seeded(Dataset[Sample]):
    """A dataset whose random transforms depend on (seed, epoch, index) alone."""

    def __init__(self, dataset: SegmentationFolder, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, key: Any) -> Sample:
        epoch, index = key
        state = np.random.SeedSequence((self.seed, epoch, index)).generate_state(1)
        with torch.random.fork_rng(devices=[]):  # in the main process too, the model's own randomness is left alone
            torch.manual_seed(int(state[0]))
            return self.dataset[index]


def _collate(samples: list[Sample]) -> Batch:
    return Batch(
        torch.stack([sample.image.as_subclass(Tensor) for sample in samples]),  # (B, 3, S, S)
        torch.stack([sample.labels.as_subclass(Tensor) for sample in samples]),  # (B, S, S)
        [sample.id for sample in samples],
    )


def batches(
    dataset: SegmentationFolder,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    workers: int = 0,
    pin: bool = False,
    part: range | None = None,
) -> Iterator[Batch]:
    """Batches from step `start` on, without end.

    Args:
        dataset: with a transform that gives all samples one size.
        workers: processes that read ahead; 0 reads in this one.
        pin: page-locked memory, for a faster copy to a GPU.
        part: places of each batch that are wanted here; None: all.
    """
    loader: DataLoader[Sample] = DataLoader(
        _Seeded(dataset, seed),
        batch_sampler=StreamSampler(len(dataset), batch_size, seed, start, part),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        persistent_workers=False,
    )
    yield from loader
