"""Import mmdet without the two messages on optional packages that its import prints; everything else stays visible.

``mmdet.datasets`` prints that OneDL's own data sets are left out, ``mmdet.evaluation`` warns that faster_coco_eval is
missing. Neither is used here, and both frighten newcomers.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import IO, Any, cast

PRINTED = "Could not import OneDL. Skipping OneDL datasets."
WARNED = "faster_coco_eval is not installed"  # how the warning begins


class _WithoutMessage:
    """A stream that drops one message, with the line end that ``print`` writes behind it, and passes on the rest."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._line_end_is_due = False

    def write(self, text: str) -> int:
        if text.rstrip("\n") == PRINTED:
            self._line_end_is_due = not text.endswith("\n")
            return len(text)
        due, self._line_end_is_due = self._line_end_is_due, False
        if due and text == "\n":
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Silence exactly the two messages of mmdet's import while the block runs."""
    stream = cast("IO[str]", _WithoutMessage(sys.stdout))
    with warnings.catch_warnings(), contextlib.redirect_stdout(stream):
        warnings.filterwarnings("ignore", message=WARNED, category=UserWarning)
        yield
