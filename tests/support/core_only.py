"""Tests of what trains skip, with the reason, where only the core's packages are installed (`make core`).

They fail there for one of three reasons, each of which says that a package of `extras.TRAINING` is missing: an import,
a fault of the function that they call, or the end of the command that they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from commands import Called

from cissod_bench import extras
from cissod_bench.errors import EnvironmentFault

MISSING = tuple(extras.missing())
REASON = f"needs {', '.join(MISSING)}, not installed here: make setup"
TOLD = ", not installed here."
"""What `extras.require_training` says."""

trains = pytest.mark.skipif(bool(MISSING), reason=REASON)
"""Marks a test that starts a training in a process of its own, whose exit code alone would not say why it failed."""


def lacks_training(error: BaseException | None) -> bool:
    """Return whether an error, or the one that caused it, is that a package is missing that only training needs."""
    if isinstance(error, ModuleNotFoundError):
        return (error.name or "").partition(".")[0] in MISSING
    if isinstance(error, EnvironmentFault):
        return bool(MISSING) and TOLD in str(error)
    return error is not None and lacks_training(error.__cause__)


@contextmanager
def skipping() -> Iterator[None]:
    """Skip where a package is missing that only training needs."""
    try:
        yield
    except Exception as error:
        if lacks_training(error):
            pytest.skip(REASON)
        raise


def skip_if_refused(ended: Called) -> Called:
    """Return how a command ended; skip where it was refused because a package is missing that only training needs."""
    if MISSING and ended.code == EnvironmentFault.exit_code and TOLD in ended.err:
        pytest.skip(REASON)
    return ended


class CoreModule(pytest.Module):
    """A file of tests that may import what is missing here."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:  # type: ignore[override]
        try:
            yield from super().collect()
        except self.CollectError as error:
            if lacks_training(error.__cause__):
                pytest.skip(REASON, allow_module_level=True)
            raise
