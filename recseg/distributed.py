"""Training in several processes: `torchrun --nproc-per-node N -m recseg.cli train …`.

Each process takes its share of every batch, `data_parallel` averages the gradients, and means are taken over the whole
batch, so the result is that of a single process. With one process, every function here is a no-op.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recseg.errors import RecsegError

T = TypeVar("T")
# Error texts of gloo and NCCL when another process has ended; neither has an exception class for it.
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError")

# Destroyed groups are kept alive until the program ends. If DistributedDataParallel held the last reference, freeing it
# would wait for the group's threads with the GIL held, while a gloo thread may be waiting for the GIL: a deadlock.
_ended: list[Any] = []


def rank() -> int:
    """Number of this process, 0-based."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _joined() else 1


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def process_group(device: str | None = None) -> Iterator[str | None]:
    """Join the processes that `torchrun` started, if any; yields this one's device.

    Args:
        device: what the user asked for; on GPUs, each process gets its own.

    Raises:
        RecsegError: too few GPUs, or another process has failed (its own message says why).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _joined():
        yield device
        return
    cuda = torch.cuda.is_available() if device is None else device.startswith("cuda")
    if cuda:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise RecsegError(f"process {local} of this machine: expected one GPU per process, found fewer")
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device or "cpu"
    except RuntimeError as error:
        if any(words in str(error) for words in LOST):
            raise RecsegError(f"process {rank()}: another process has failed; its own message says why") from error
        raise
    finally:
        _ended.append(dist.group.WORLD)
        dist.destroy_process_group()


def shard(number: int) -> range:
    """This process's part of `number` items: contiguous, and as even as possible."""
    return range(number * rank() // world_size(), number * (rank() + 1) // world_size())


def global_count(count: Tensor | int) -> Tensor | int:
    """What to divide a sum over this process's shard by, for a mean over the whole batch; at least 1 in total.

    Gradients are averaged over processes, so the divisor is the total count divided by the number of processes.
    """
    if world_size() == 1:
        return count.clamp(min=1) if isinstance(count, Tensor) else max(1, count)
    total = torch.as_tensor(count).to(_device(), torch.float32, copy=True)
    dist.all_reduce(total)
    return total.clamp(min=1) / world_size()


@torch.no_grad()
def broadcast_parameters(module: nn.Module) -> None:
    """Copy the weights of the first process to all others."""
    if world_size() == 1:
        return
    for value in module.state_dict().values():
        whole = value.contiguous()  # the same order whatever the memory format
        dist.broadcast(whole, 0)
        value.copy_(whole)


def data_parallel(module: nn.Module) -> nn.Module:
    """Wrap a module whose `forward` returns the loss; the backward pass averages gradients over all processes.

    All start with the weights of the first process. If only some processes have a gradient, the others count as zero;
    if none has, it stays None, so that no optimiser touches the weight.
    """
    if world_size() == 1:
        return module
    # On CPUs each process keeps its own batch-norm statistics.
    return DistributedDataParallel(module, find_unused_parameters=True, broadcast_buffers=False)


def all_reduce_max(*values: float) -> list[float]:
    """The maximum of each value over all processes."""
    return _reduced(values, dist.ReduceOp.MAX) if world_size() > 1 else list(values)


def mean(*values: float) -> list[float]:
    """The mean of each value over all processes."""
    size = world_size()
    return [total / size for total in _reduced(values, dist.ReduceOp.SUM)] if size > 1 else list(values)


def _reduced(values: Sequence[float], operation: Any) -> list[float]:
    together = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(together, op=operation)
    found: list[float] = together.tolist()
    return found


@contextmanager
def main_first() -> Iterator[None]:
    """Run the block in the first process before all others, which then find its files or cache."""
    if rank() > 0:
        dist.barrier()
    yield
    if rank() == 0 and world_size() > 1:
        dist.barrier()


def from_first(act: Callable[[], T]) -> T:
    """Call `act` in the first process only; all return its value or raise its `RecsegError`.

    It is sent as a pickle, between processes that trust each other.
    """
    if world_size() == 1:
        return act()
    found: list[Any] = [None]
    if rank() == 0:
        try:
            found = [act()]
        except RecsegError as error:
            found = [error]
    dist.broadcast_object_list(found, 0)
    if isinstance(found[0], RecsegError):
        raise found[0]
    value: T = found[0]
    return value


def all_gather(value: Any) -> list[Any]:
    """The value of every process, in rank order. It is sent as a pickle, between processes that trust each other."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def synchronise_norms(model: nn.Module) -> nn.Module:
    """Replace batch norms by synchronised ones; timm's conversion keeps the activations inside its norm layers."""
    from timm.layers import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(model)
    return converted
