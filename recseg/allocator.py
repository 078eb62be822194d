"""Freed memory that stays at hand, instead of going back to the system and being asked for again.

Chapter 8 of the book explains this file. A network on a CPU asks for the same large blocks at every picture. glibc
gives freed blocks of more than 32 MiB (at first even of 128 KiB) back to the system, and memory beyond twice that at
the end of its heap; asked for again, each page has to be emptied and mapped anew, 4 KiB at a time. PyTorch's tuning
guide recommends other allocators for it; two of glibc's own settings do as much (`man 3 mallopt`).
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
GLIBC = 32 << 20  # bytes: the most that glibc keeps by itself


def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Keep freed blocks of up to `limit` bytes, for the rest of this process and those that it forks.

    A process then stays as large as it once was. What `recseg train`, `evaluate`, `predict` and `video` begin with.

    Args:
        limit: bytes; `GLIBC` is what glibc would come to by itself.

    Returns:
        Whether the system's C library has such settings: glibc has, on Linux. Elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return all([mallopt(_MMAP_THRESHOLD, limit), mallopt(_TRIM_THRESHOLD, min(2 * limit, (1 << 31) - 1))])
