"""Memory that a training process keeps: glibc gives large blocks back at once, and a training asks for them again.

Every tensor of more than 128 KiB is a block of its own, which the kernel fills with zeros each time: a fifth of a
training step on a CPU. Told to keep what it has freed, glibc reuses it. Other systems and C libraries are left alone.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_KEPT = (1 << 31) - 1  # bytes; mallopt takes an int
_PAD = 64 << 20  # bytes asked of the kernel beyond what is needed
_BLOCKS = (1 << 30, 32 << 20)  # bytes from which a block is given back at once; older versions of glibc allow 32 MiB


def keep_memory() -> bool:
    """Tell the allocator of this process to keep freed memory; return whether it does. Repeating it changes nothing."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    blocks = any(mallopt(_MMAP_THRESHOLD, size) for size in _BLOCKS)
    return bool(blocks and mallopt(_TRIM_THRESHOLD, _KEPT) and mallopt(_TOP_PAD, _PAD))
