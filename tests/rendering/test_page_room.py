"""A page of limited size: text and tables always, then figures, then as many pictures as there is room for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import pytest

from cissod_bench.errors import DataFault
from cissod_bench.rendering import page
from cissod_bench.rendering.page import render_html
from cissod_bench.rendering.room import Room
from cissod_bench.reporting.galleries import Gallery, Shelf
from cissod_bench.reporting.tables import Figure, Report


@dataclass
class Block:
    """A drawing of so many bytes."""

    letter: str
    size: int
    stem: str = ""

    def page(self) -> str:
        if self.size < 0:
            raise DataFault("a.jpg: <gone>.", remedy="fetch it again")
        return self.letter * self.size

    def files(self, kind: str) -> Mapping[str, bytes]:
        return {}


def report(figures: list[int], pictures: list[int]) -> Report:
    """Return a report with figures and pictures of so many bytes."""
    drawn = tuple(Figure(f"figure {at}", "", "", pd.DataFrame(), Block("F", size)) for at, size in enumerate(figures))
    shelf = Shelf("", tuple(Block("P", size) for size in pictures))
    return Report("looking", "Looking", figures=drawn, galleries=(Gallery("Seen", "", "", (shelf,)),))


def shown(html: str) -> tuple[int, int]:
    """Return how many bytes of figures and of pictures a page has, in units of ten thousand."""
    return html.count("F" * 10_000), html.count("P" * 10_000)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages have 300 kB; without figures and pictures one has less than 10."""
    monkeypatch.setattr(page, "MOST_BYTES", 300_000)
    monkeypatch.setattr(page, "MOST_PICTURE_BYTES", 150_000)


@pytest.mark.parametrize(
    ("figures", "pictures", "seen", "without"),
    [
        ([50_000], [40_000] * 3, (5, 12), 0),  # room for all
        ([50_000], [40_000] * 9, (5, 16), 0),  # as many pictures as pictures may take; the last begins below that
        ([100_000, 90_000], [40_000] * 9, (19, 8), 0),  # as many as figures leave
        ([200_000, 110_000, 60_000], [40_000] * 9, (26, 0), 1),  # a figure that is too large makes room for a small one
        ([400_000], [40_000] * 9, (0, 16), 1),
    ],
)
def test_a_page_is_never_larger_than_it_may_be(
    figures: list[int], pictures: list[int], seen: tuple[int, int], without: int
) -> None:
    html = render_html([report(figures, pictures)], [])
    assert len(html.encode()) <= 300_000
    assert shown(html) == seen
    missing = len(pictures) - seen[1] // 4
    assert (f"{missing} pictures are left out" in html) == bool(missing)
    assert html.count("report --format svg") == without
    assert "<!--room" not in html


def test_text_and_tables_stay_however_large_they_are() -> None:
    made = Report("looking", "Looking", notes=("n" * 400_000,), figures=report([10_000], []).figures)
    html = render_html([made], [])
    assert "n" * 400_000 in html
    assert shown(html) == (0, 0)


def test_a_picture_that_cannot_be_read_says_why() -> None:
    html = render_html([report([], [-1, 10_000])], [])
    assert "a.jpg: &lt;gone&gt;." in html
    assert shown(html) == (0, 1)


def test_text_that_looks_like_a_place_is_none() -> None:
    html = render_html([Report("looking", "<!--room 0-->", notes=("<!--room 0-->",))], [])
    assert "&lt;!--room 0--&gt;" in html


def test_places_are_filled_once() -> None:
    room = Room(10_000, 10_000)
    places = room.picture(Block("<!--room 1-->", 1)), room.picture(Block("P", 3))
    assert room.filled(" ".join(places)) == "<figure><!--room 1--></figure> <figure>PPP</figure>"
