"""Several processes, one training: `torchrun --nproc-per-node N -m recseg.cli train …`.

Each process takes its share of every batch, `data_parallel` averages the gradients, and what is divided by a count is
divided by the count of the whole batch, so that the sum over processes is what one process would have computed.
Under one process every function here does nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recseg.errors import RecsegError

T = TypeVar("T")
# How gloo and NCCL say that another process is there no more; neither has an error of its own for it.
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError")

# Groups that have ended, kept until the program ends: DistributedDataParallel holds its group, too. Were it the last to
# let go, it would wait for the group's threads and keep Python's lock meanwhile. On CPUs (gloo) a thread may be waiting
# for that lock, to give back a tensor that it has sent, and neither would ever go on.
_ended: list[Any] = []


def rank() -> int:
    """Number of this process, 0-based."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def process_group(device: str | None = None) -> Iterator[str | None]:
    """Join the processes that `torchrun` started, if it did; yields the device of this one.

    Args:
        device: what the user asked for. On GPUs each process gets one of its own.

    Raises:
        RecsegError: another process has failed, and this one waits for it in vain: only that one can say why.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or (dist.is_available() and dist.is_initialized()):
        yield device
        return
    cuda = torch.cuda.is_available() if device is None else device.startswith("cuda")
    if cuda:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise RecsegError(f"process {local} of this machine: expected one GPU a process, there are fewer")
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device or "cpu"
    except RuntimeError as error:
        if any(words in str(error) for words in LOST):
            raise RecsegError(f"process {rank()}: another process has failed; its own line says why") from error
        raise
    finally:
        _ended.append(dist.group.WORLD)
        dist.destroy_process_group()


def shard(number: int) -> range:
    """Which of `number` things are this process's: contiguous, and as even as can be."""
    return range(number * rank() // world_size(), number * (rank() + 1) // world_size())


def global_count(count: Tensor | int) -> Tensor | int:
    """What to divide a sum over this process's share by, for a mean over the whole batch; at least 1 for all together.

    Gradients are averaged over processes. So the divisor is the count of all, over the number of processes.
    """
    if world_size() == 1:
        return count.clamp(min=1) if isinstance(count, Tensor) else max(1, count)
    if isinstance(count, Tensor):
        total = count.to(_device(), torch.float32, copy=True)
    else:
        total = torch.full((), float(count), device=_device())
    dist.all_reduce(total)
    return total.clamp(min=1) / world_size()


@torch.no_grad()
def broadcast_parameters(module: nn.Module) -> None:
    """Give all processes the weights of the first, whatever each of them drew or read."""
    if world_size() == 1:
        return
    for value in module.state_dict().values():
        whole = value.contiguous()  # sent in one order, however it lies in memory
        dist.broadcast(whole, 0)
        value.copy_(whole)


def data_parallel(module: nn.Module) -> nn.Module:
    """A module whose `forward` gives the loss, with gradients averaged over all processes, during the backward pass.

    All begin with the weights of the first process. A process without a gradient counts as zero where others have one.
    What has a gradient in no process stays without, so that no optimiser touches it.
    """
    if world_size() == 1:
        return module
    return DistributedDataParallel(module, find_unused_parameters=True, broadcast_buffers=False)  # own norms on CPUs


def all_reduce_max(*values: float) -> list[float]:
    """The largest of each value over all processes: what they have to agree on."""
    if world_size() == 1:
        return list(values)
    together = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(together, op=dist.ReduceOp.MAX)
    found: list[float] = together.tolist()
    return found


def mean(*values: float) -> list[float]:
    """The mean of each value over all processes."""
    if world_size() == 1:
        return list(values)
    together = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(together)
    found: list[float] = (together / world_size()).tolist()
    return found


@contextmanager
def main_first() -> Iterator[None]:
    """The first process does what follows before all others: what it makes (files, a cache), they find."""
    if rank() > 0:
        dist.barrier()
    yield
    if rank() == 0 and world_size() > 1:
        dist.barrier()


def from_first(act: Callable[[], T]) -> T:
    """What an act gives in the first process, for all of them; it runs nowhere else. A `RecsegError` reaches all, too.

    Between processes that trust each other: it travels as a pickle.
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
    """The value of every process, in their order. Between processes that trust each other: it travels as a pickle."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def synchronise_norms(model: nn.Module) -> nn.Module:
    """Batch norms that count over all processes. timm's hold an activation, which torch's own conversion would lose."""
    if any(type(module).__module__.startswith("timm.") for module in model.modules()):
        from timm.layers import convert_sync_batchnorm as convert
    else:
        convert = nn.SyncBatchNorm.convert_sync_batchnorm
    converted: nn.Module = convert(model)
    return converted
