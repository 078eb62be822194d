"""What a run does to its folder and its terminal between two steps: the log, and an end that was asked for."""

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from recseg.files import atomic_write


class Interrupts:
    """Ctrl-C and a polite kill end a run between two steps, where its state is whole."""

    def __enter__(self) -> "Interrupts":
        self.asked = False
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # signals are the main thread's alone
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self.previous[signal.SIGINT])  # a second Ctrl-C does not wait

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def open_log(path: Path, step: int) -> Iterator[Any]:
    """The log, open to append, without the lines after `step`: those steps are about to be done again."""
    kept = []
    if path.exists():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut off while being written
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
    with atomic_write(path) as temporary:
        temporary.write_text("".join(kept))
    with open(path, "a") as stream:
        yield stream
