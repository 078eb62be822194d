"""An endless, shuffled, augmented stream of batches that can be entered at any step and is the same each time.

Sample k of the stream is drawn from the permutation of its epoch and augmented with a seed of its own, made from (seed,
epoch, index). So neither the number of workers nor an interruption changes what a training sees.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from recseg.classes import BACKGROUND, VOID
from recseg.data.folder import Sample, SegmentationFolder
from recseg.data.readers import Readers, begin, hand_on, leave_signals_to_parent
from recseg.errors import RecsegError, counted


@dataclass
class Batch:
    """Samples of one update.

    Attributes:
        images: (B, 3, S, S) uint8.
        labels: (B, S, S) int64.
        lengths: (B,) number of classes of each image; it stays on the CPU, where a loop can read it without a wait.
        ids: of the images.
        skipped: why other images were passed over, by id.
    """

    images: Tensor
    labels: Tensor
    lengths: Tensor
    ids: list[str]
    skipped: dict[str, str] = field(default_factory=dict)

    def pin_memory(self) -> "Batch":
        """In page-locked memory, from which a copy to a GPU needs no wait. The loader calls this, by its name."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


def count_classes(labels: Tensor) -> Tensor:
    """Number of classes in each label map, background and void left out: (B, H, W) → (B,)."""
    counts = [torch.bincount(image.flatten(), minlength=VOID)[1:VOID].count_nonzero() for image in labels.cpu()]
    return torch.stack(counts)  # (B,)


class StreamSampler(Sampler[list[tuple[int, int]]]):
    """(epoch, index) pairs of each batch from step `start` on, without end; of each batch, those in `part`.

    With weights an image is drawn in proportion to its own, and its position in the stream stands for the epoch.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, start: int = 0, part: range | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> None:  # fmt: skip
        self.size, self.batch_size, self.seed, self.start = size, batch_size, seed, start
        self.part = range(batch_size) if part is None else part
        self.chances = None if weights is None else weights / weights.sum()  # of each image

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.start * self.batch_size
        epoch, order = -1, np.empty(0, dtype=np.int64)
        while True:
            batch = []
            for position in (first + offset for offset in self.part):
                if position // self.size != epoch:
                    epoch = position // self.size
                    generator = np.random.default_rng((self.seed, epoch))
                    if self.chances is None:
                        order = generator.permutation(self.size)
                    else:
                        order = generator.choice(self.size, self.size, p=self.chances)
                # An image that is drawn twice in an epoch is augmented in two ways.
                seen = epoch if self.chances is None else position
                batch.append((seen, int(order[position % self.size])))
            yield batch
            first += self.batch_size


class _Read(NamedTuple):
    """A sample, or why there is none, and the images that were passed over to find it: id → why."""

    sample: Sample | RecsegError
    skipped: dict[str, str]


class _Seeded(Dataset[_Read]):
    """A dataset whose random transforms depend on (seed, epoch, index) alone."""

    def __init__(self, dataset: SegmentationFolder, seed: int, skip: bool, readers: Readers) -> None:
        self.dataset, self.seed, self.skip, self.readers = dataset, seed, skip, readers

    def __getitem__(self, key: Any) -> _Read:
        epoch, index = key
        state = np.random.SeedSequence((self.seed, epoch, index)).generate_state(1)
        skipped: dict[str, str] = {}
        for candidate in range(index, index + len(self.dataset)):
            taken = candidate % len(self.dataset)
            self.readers.note(taken)
            try:
                with torch.random.fork_rng(devices=[]):  # the model's own randomness is left alone, here too
                    torch.default_generator.manual_seed(int(state[0]))  # `torch.manual_seed` also visits each device
                    return _Read(self.dataset[taken], skipped)
            except RecsegError as error:
                # Handed on, not raised: crossing processes, it would become a page of traceback.
                if not self.skip:
                    return _Read(error, skipped)
                skipped[self.dataset.ids[taken]] = str(error)
        first = next(iter(skipped.values()))
        return _Read(RecsegError(f"none of {counted(len(skipped), 'image')} can be read; the first: {first}"), skipped)


def rarity_weights(dataset: SegmentationFolder, *, skip: bool = False) -> NDArray[np.float64]:
    """How often each image is to be drawn so that rare classes are seen more often: (N,), from 1.

    1/√f, where f is the share of the images that hold the image's rarest class: the square root halves the imbalance on
    a logarithmic scale. Source: the repeat factor of Gupta et al., "LVIS", CVPR 2019, with a threshold of 1.

    Args:
        dataset: whose masks are read, once.
        skip: whether masks that cannot be read are to be passed over.
    """
    found = dataset.survey(skip=skip)
    there = found.areas[:, BACKGROUND + 1 : VOID] > 0  # (N, C)
    shares = there.mean(axis=0).clip(min=1e-9)  # (C,)
    weights = np.where(there, 1 / np.sqrt(shares), 1.0).max(axis=1)  # (N,)
    by_id = dict(zip(found.ids, weights.tolist(), strict=True))
    return np.array([by_id.get(name, 1.0) for name in dataset.ids])


def _collate(read: list[_Read]) -> Batch | RecsegError:
    samples: list[Sample] = []
    skipped: dict[str, str] = {}
    for sample, passed in read:
        if isinstance(sample, RecsegError):
            return sample
        samples.append(sample)
        skipped |= passed
    images = torch.stack([sample.image for sample in samples])  # (B, 3, S, S)
    labels = torch.stack([sample.labels for sample in samples])  # (B, S, S)
    batch = Batch(images, labels, count_classes(labels), [sample.id for sample in samples], skipped)
    if fault := hand_on(batch.images, batch.labels, batch.lengths):
        return fault
    return batch


def batches(
    dataset: SegmentationFolder,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    workers: int = 0,
    pin: bool = False,
    part: range | None = None,
    skip: bool = False,
    readers: Readers | None = None,
    weights: NDArray[np.float64] | None = None,
) -> Iterator[Batch]:
    """Batches from step `start` on, without end.

    Args:
        dataset: with a transform that gives all samples one size.
        workers: processes that read ahead; 0 reads in this one.
        pin: page-locked memory, for a faster copy to a GPU.
        part: places of each batch that are wanted here; None: all.
        skip: an image that cannot be read gives its place to the next in the list that can, which is the same one
            however often a training is resumed; `Batch.skipped` names it. Otherwise it is an error.
        readers: of `workers` processes, where the caller wants to know which image a dead one was at.
        weights: how often each image is to be drawn, relative to the others; None: each once an epoch.

    Raises:
        RecsegError: an image that cannot be read, or, with `skip`, not one that can; or no room in shared memory.
    """
    loader: DataLoader[_Read] = DataLoader(
        _Seeded(dataset, seed, skip, readers or Readers(workers, dataset.ids)),
        batch_sampler=StreamSampler(len(dataset), batch_size, seed, start, part, weights),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        persistent_workers=False,
        worker_init_fn=leave_signals_to_parent,
        # One of its own: it draws a number whenever it starts, and a resumed training must not be a number ahead.
        generator=torch.Generator().manual_seed(seed),
    )
    for batch in begin(loader):
        if isinstance(batch, RecsegError):
            raise batch
        yield batch
