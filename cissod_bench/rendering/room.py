"""What a page of limited size has room for: text and tables always, then figures, then pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from cissod_bench.errors import DataFault
from cissod_bench.reporting.galleries import Drawn
from cissod_bench.reporting.tables import Figure

MOST_BYTES = 5_000_000
"""Of the whole page, as far as text and tables leave a choice."""

MOST_PICTURE_BYTES = 3_000_000
"""Of all pictures of galleries."""

_CODE = "<code>{}</code>"
_NO_FIGURE = (
    '<p class="reading">Left out, for the page would be larger than 5 MB; '
    f"{_CODE.format('cissod-bench report --format svg')} writes it to a file.</p>"
)
_NO_PICTURES = (
    '<p class="reading">{number} pictures are left out, for the page would be larger than 5 MB; '
    f"{_CODE.format('cissod-bench show')} shows one run or split.</p>"
)
_PLACE = re.compile("<!--room (\\d+)-->")  # no text can hold one: it is escaped


@dataclass
class Room:
    """Keeps places in a page while it is written, and fills them when it is known how large all else is.

    Attributes:
        most: bytes of the page.
        most_pictures: bytes of its pictures; one that begins below this is shown whole, if the page has room for it.
    """

    most: int
    most_pictures: int
    _figures: dict[int, Figure] = field(default_factory=dict)
    _pictures: dict[int, Drawn] = field(default_factory=dict)
    _told: list[int] = field(default_factory=list)

    def figure(self, figure: Figure) -> Markup:
        """Return the place of a figure."""
        return self._place(lambda place: self._figures.__setitem__(place, figure))

    def picture(self, drawing: Drawn) -> Markup:
        """Return the place of a picture."""
        return self._place(lambda place: self._pictures.__setitem__(place, drawing))

    def left_out(self) -> Markup:
        """Return the place where it is told how many pictures found no room."""
        return self._place(self._told.append)

    def _place(self, keep: Callable[[int], None]) -> Markup:
        place = len(self._figures) + len(self._pictures) + len(self._told)
        keep(place)
        return Markup(f"<!--room {place}-->")

    def filled(self, html: str) -> str:
        """Return a page with figures in their places, and with as many pictures as there is room for."""
        left = self.most - len(html.encode()) - len(_NO_PICTURES) - len(_NO_FIGURE) * len(self._figures)
        texts = dict.fromkeys(self._told, "")
        for place, figure in self._figures.items():
            size = len(figure.svg.encode())
            texts[place], left = (figure.svg, left - size) if size <= left else (_NO_FIGURE, left)
        left_out, taken = 0, 0
        for place, drawing in self._pictures.items():
            text = "" if left_out or taken >= self.most_pictures else _picture(drawing)
            size = len(text.encode())
            if not text or size > left:
                left_out += 1
                text = ""
            else:
                taken, left = taken + size, left - size
            texts[place] = text
        if left_out:
            texts |= dict.fromkeys(self._told, _NO_PICTURES.format(number=left_out))
        return _PLACE.sub(lambda match: texts[int(match[1])], html)


def _picture(drawing: Drawn) -> str:
    """Return a picture as an element of the page, or the reason why its image cannot be read."""
    try:
        return f"<figure>{drawing.page()}</figure>"
    except DataFault as fault:
        return f'<figure><p class="reading">{escape(fault.message)}</p></figure>'
