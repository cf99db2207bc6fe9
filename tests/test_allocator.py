"""Freed memory stays with the process; see `cissod_bench.allocator`."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from cissod_bench import allocator

FAULTS = """
import resource, sys
import numpy as np
from cissod_bench.allocator import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory() and keep_memory()
for block in range(20):
    np.ones(4 << 20)  # 32 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for block in range(20):
    np.ones(3 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_blocks_are_used_again() -> None:
    assert page_faults("keep") * 20 < page_faults("leave")


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert not allocator.keep_memory()
