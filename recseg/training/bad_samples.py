"""Find the images in a batch that cause a non-finite loss."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recseg.data.stream import count_classes
from recseg.distributed import world_size
from recseg.errors import RecsegError
from recseg.training.objective import compute_loss

if TYPE_CHECKING:
    from recseg.training.trainer import Trainer


def explained(trainer: "Trainer", error: RecsegError) -> RecsegError:
    """A non-finite-loss error with the step number and the images responsible added."""
    trainer.check_gradient()  # raises if the previous update's gradient is the cause
    assert trainer.batch is not None

    def alone(image: Tensor, label: Tensor) -> Tensor:
        lengths = count_classes(label)
        return compute_loss(trainer.averaged, image, label, lengths, trainer.config, trainer.done())["loss"]

    who = find_bad_samples(alone, *trainer.on_device(trainer.batch), trainer.batch.ids)
    return RecsegError(f"step {trainer.step}: {error} ({who})")


def find_bad_samples(
    loss: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, ids: Sequence[str]
) -> str:
    """Find the images whose loss is not finite on their own; the whole batch if there are none.

    Args:
        loss: maps (1, 3, S, S) and (1, S, S) to a scalar. Its network is in `eval()` mode, where images share no batch
            statistics; the averaged network, for example, which has not been updated with this batch.
        images: (B, 3, S, S).
        labels: (B, S, S).
        ids: B names.

    Returns:
        Text for an error message, such as "image a" or "one of the images a, b, c".
    """
    found = []
    # Not in a distributed run: the loss involves an all-reduce, which the other processes would not join.
    for number in range(len(ids)) if world_size() == 1 else ():
        alone = slice(number, number + 1)
        try:
            with torch.no_grad():
                if not bool(loss(images[alone], labels[alone]).isfinite()):
                    found.append(ids[number])
        except RecsegError:
            found.append(ids[number])
    if len(found) in (0, len(ids)) and len(ids) > 1:
        return f"one of the images {', '.join(ids)}"
    return f"image{'s' if len(found) > 1 else ''} {', '.join(found or ids)}"
