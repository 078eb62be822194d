"""Exercise 5 of chapter 8: ring all-reduce of vectors, with a thread for each process."""

import functools
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from recseg.book.exercises.comparison import difference, short, to_compare
from recseg.book.exercises.exercise import Custom, Mistakes, Off
from recseg.book.exercises.running import what_happened

Send = Callable[[Tensor], None]
Receive = Callable[[], Tensor]
Reduce = Callable[[Tensor, int, int, Send, Receive], Tensor]
_PATIENCE = 3.0  # seconds to wait for a message


def _run(answer: Reduce, vectors: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """Run each process as a thread; returns what each of them returned, and how many numbers it sent."""
    world = len(vectors)
    mail: list[queue.Queue[Tensor]] = [queue.Queue() for _ in vectors]
    found: list[Any] = [None] * world
    sent, errors = [0] * world, dict[int, str]()

    def work(rank: int) -> None:
        def send(message: Tensor) -> None:
            sent[rank] += message.numel()
            mail[(rank + 1) % world].put(message.clone())

        def receive() -> Tensor:
            return mail[rank].get(timeout=_PATIENCE)

        try:
            found[rank] = answer(vectors[rank].clone(), rank, world, send, receive)
        except queue.Empty:
            errors[rank] = f"process {rank} of {world} waits for a message that is never sent: send first, then receive"
        except Exception as error:
            errors[rank] = f"process {rank} of {world} stops with {what_happened(error, answer)}"

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10 * _PATIENCE)
    if errors:  # report the cause, not the processes that wait because of it
        raise Off(min(errors.values(), key=lambda line: "waits" in line))
    if any(thread.is_alive() for thread in threads):
        raise Off(f"one of {world} processes does not finish")
    return found, sent


def _judge_ring(answer: Any) -> None:
    if not callable(answer):
        raise Off(f"the answer is {short(answer)}; expected a function, (vector, rank, world, send, receive) → sum")
    for world in (2, 3, 4, 1):
        vectors = list(torch.randn(world, 12, generator=torch.Generator().manual_seed(world)))
        total = torch.stack(vectors).sum(dim=0)
        found, sent = _run(answer, vectors)
        for rank, vector in enumerate(found):
            if difference(to_compare(vector), total) is None:
                continue
            where = f"process {rank} of {world}"
            if vector is None:
                raise Off(f"{where} returns None: is there a `return` at the end?")
            if difference(to_compare(vector), total / world) is None:
                raise Off(f"{where} returns the mean; expected the sum")
            given = vector if isinstance(vector, Tensor) and vector.shape == total.shape else torch.zeros(12)
            if int(torch.isclose(given, total).sum()) == len(total) // world:
                raise Off(f"{where} has the sum in one part only: a second round hands the finished parts on")
            raise Off(f"{where} does not return the sum of all vectors: {difference(to_compare(vector), total)}")
        least = 2 * (world - 1) * len(total) // world
        if max(sent) > least:
            raise Off(f"each of {world} processes sends {max(sent)} numbers, a ring needs {least}: send single parts")


def _ring(vector: Tensor, rank: int, world: int, send: Send, receive: Receive, *, rounds: int = 2) -> Tensor:
    """Ring all-reduce: in the first round parts are added up, in the second they are passed on."""
    parts = list(vector.clone().chunk(world))
    for hop in range(world - 1):
        send(parts[(rank - hop) % world])
        parts[(rank - hop - 1) % world] += receive()
    for hop in range(world - 1 if rounds == 2 else 0):
        send(parts[(rank + 1 - hop) % world])
        parts[(rank - hop) % world] = receive()
    return torch.cat(parts)


def _whole_vectors(vector: Tensor, rank: int, world: int, send: Send, receive: Receive) -> Tensor:
    total, passing = vector.clone(), vector
    for _ in range(world - 1):
        send(passing)
        passing = receive()
        total += passing
    return total


def _receive_first(vector: Tensor, rank: int, world: int, send: Send, receive: Receive) -> Tensor:
    if world > 1:
        received = receive()
        send(vector)
        vector = vector + received
    return vector


def _ring_mistakes() -> Mistakes:
    return [
        (_whole_vectors, "a ring needs 16: send single parts"),
        (functools.partial(_ring, rounds=1), "a second round hands the finished parts on"),
        (lambda vector, rank, world, *mail: _ring(vector, rank, world, *mail) / world, "the mean; expected the sum"),
        (_receive_first, "waits for a message that is never sent"),
    ]


RING = Custom(_judge_ring, _ring_mistakes)
