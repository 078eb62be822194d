"""An endless, shuffled, augmented, reproducible stream of batches that can be started at any step.

Sample k of the stream is drawn from the permutation of its epoch and augmented with its own seed, derived from (seed,
epoch, index). So neither the number of workers nor an interruption changes the samples of a training.
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
        lengths: (B,) number of classes of each image; it stays on the CPU, where reading it needs no GPU sync.
        ids: of the images.
        skipped: why other images were skipped, by id.
    """

    images: Tensor
    labels: Tensor
    lengths: Tensor
    ids: list[str]
    skipped: dict[str, str] = field(default_factory=dict)

    def pin_memory(self) -> "Batch":
        """A copy in page-locked memory, for asynchronous copies to a GPU. `DataLoader` calls this method by name."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


def count_classes(labels: Tensor) -> Tensor:
    """Number of classes in each label map, without background and void: (B, H, W) → (B,)."""
    counts = [torch.bincount(image.flatten(), minlength=VOID)[1:VOID].count_nonzero() for image in labels.cpu()]
    return torch.stack(counts)  # (B,)


class StreamSampler(Sampler[list[tuple[int, int]]]):
    """(epoch, index) pairs of each batch from step `start` on, without end; of each batch, those in `part`.

    With weights, images are drawn in proportion to them, and the position in the stream replaces the epoch.
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
                # An image drawn twice in an epoch is augmented differently each time.
                seen = epoch if self.chances is None else position
                batch.append((seen, int(order[position % self.size])))
            yield batch
            first += self.batch_size


class _Read(NamedTuple):
    """A sample, or why there is none, and the images skipped to find it: id → reason."""

    sample: Sample | RecsegError
    skipped: dict[str, str]


class _Seeded(Dataset[_Read]):
    """A dataset whose random transforms depend only on (seed, epoch, index)."""

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
                with torch.random.fork_rng(devices=[]):  # leaves the model's random state alone
                    torch.default_generator.manual_seed(int(state[0]))  # `torch.manual_seed` also seeds every device
                    return _Read(self.dataset[taken], skipped)
            except RecsegError as error:
                # Returned, not raised: from another process it would arrive as a page of traceback.
                if not self.skip:
                    return _Read(error, skipped)
                skipped[self.dataset.ids[taken]] = str(error)
        first = next(iter(skipped.values()))
        return _Read(RecsegError(f"none of {counted(len(skipped), 'image')} can be read; the first: {first}"), skipped)


def rarity_weights(dataset: SegmentationFolder, *, skip: bool = False) -> NDArray[np.float64]:
    """Sampling weight of each image, higher for images with rare classes: (N,), at least 1.

    1/√f, where f is the share of images that contain the image's rarest class: the square root halves the imbalance on
    a logarithmic scale. Source: the repeat factor of Gupta et al., "LVIS", CVPR 2019, with a threshold of 1.

    Args:
        dataset: its masks are read once.
        skip: skip masks that cannot be read.
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
        part: positions of each batch to return, for this process; None: all.
        skip: replace an image that cannot be read by the next in the list that can, also the same one after a training
            is resumed; `Batch.skipped` names it. Otherwise it is an error.
        readers: for `workers` processes, if the caller wants to know which image a dead one was reading.
        weights: sampling weight of each image; None: each is drawn once per epoch.

    Raises:
        RecsegError: an image that cannot be read, or, with `skip`, none that can; or no room in shared memory.
    """
    loader: DataLoader[_Read] = DataLoader(
        _Seeded(dataset, seed, skip, readers or Readers(workers, dataset.ids)),
        batch_sampler=StreamSampler(len(dataset), batch_size, seed, start, part, weights),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        persistent_workers=False,
        worker_init_fn=leave_signals_to_parent,
        # A separate generator: a loader draws a number when it starts, which would put a resumed training one ahead.
        generator=torch.Generator().manual_seed(seed),
    )
    for batch in begin(loader):
        if isinstance(batch, RecsegError):
            raise batch
        yield batch
