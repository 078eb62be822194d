"""Which image of a batch is behind a loss that is not a number."""

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
    """The error of a loss, with the step, and with the images of its batch that are to blame."""
    trainer.check_gradient()  # which may be what is to blame
    assert trainer.batch is not None

    def alone(image: Tensor, label: Tensor) -> Tensor:
        lengths = count_classes(label)
        return compute_loss(trainer.averaged, image, label, lengths, trainer.config, trainer.done())["loss"]

    who = find_bad_samples(alone, *trainer.on_device(trainer.batch), trainer.batch.ids)
    return RecsegError(f"step {trainer.step}: {error} ({who})")


def find_bad_samples(
    loss: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, ids: Sequence[str]
) -> str:
    """The images whose loss is not finite when each is alone; all of the batch where that finds none.

    Args:
        loss: of a network in `eval()` mode, where no image shares statistics with another: (1, 3, S, S) and
            (1, S, S) to a scalar. The averaged network, say, which has not learned from this batch.
        images: (B, 3, S, S).
        labels: (B, S, S).
        ids: B names.

    Returns:
        Words for an error message, such as "image a" or "one of the images a, b, c".
    """
    found = []
    # Not where several processes add up their losses: they would wait for one that has an error to report.
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
