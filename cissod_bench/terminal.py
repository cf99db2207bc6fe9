"""rich's text and console, with the control characters of names and messages written out (``controls``).

Everything that is printed with rich goes through these two: rich itself drops a few control characters and passes the
escape character on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
import rich.text
from rich.segment import Segment

from cissod_bench.controls import shown, shown_name


class Text(rich.text.Text):
    r"""Text that is laid out as it is shown: ``\x1b`` is four letters."""

    def __init__(self, text: str = "", *rest: Any, **options: Any) -> None:
        super().__init__(shown(text), *rest, **options)

    def append(self, text: rich.text.Text | str, style: Any = None) -> Text:
        """Add text; see rich."""
        super().append(shown(text) if isinstance(text, str) else text, style)
        return self


def name_text(name: str, style: str = "") -> Text:
    """Return the name of a class or group as text of one line."""
    return Text(shown_name(name), style)


class Console(rich.console.Console):
    """A console that hands no control character of what it prints on to the terminal, only rich's."""

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what is printed in pieces of one style; see rich."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(shown(piece.text), piece.style)
