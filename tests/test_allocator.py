"""Freed memory stays at hand where the C library can be told so, and only there."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from recseg import allocator

# Pages that 64 MiB cost when they are asked for again: all of them, or none.
ASK_AGAIN = """
import resource
from recseg.allocator import GLIBC, keep_freed_memory
assert keep_freed_memory({limit})
def ask():
    bytearray(b"x") * (64 << 20)
ask()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
ask()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not allocator.keep_freed_memory(allocator.GLIBC), reason="the C library has no such settings")
def test_kept_memory_is_not_asked_for_again() -> None:
    def faults(limit: str) -> int:
        script = ASK_AGAIN.format(limit=limit)
        return int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)

    given_back, kept = faults("GLIBC"), faults("1 << 30")
    assert kept < 100 < given_back


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "sys", SimpleNamespace(platform="darwin"))
    assert not allocator.keep_freed_memory()


def test_a_c_library_without_such_settings_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "sys", SimpleNamespace(platform="linux"))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: SimpleNamespace())
    assert not allocator.keep_freed_memory()
