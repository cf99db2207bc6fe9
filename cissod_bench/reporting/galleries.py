"""Pictures that a report hands to a renderer, and what a drawing can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Drawn(Protocol):
    """What draws a figure when it is asked to."""

    @property
    def stem(self) -> str:
        """What its files for print are called, without place and ending; "" where it is for the page alone."""

    def page(self) -> str:
        """Return it as an SVG element that is safe to embed."""

    def files(self, kind: str) -> Mapping[str, bytes]:
        """Return it for print in one format, file name -> bytes."""


@dataclass(frozen=True)
class Shelf:
    """Pictures that belong together.

    Attributes:
        title: above them.
        drawings: from left to right; for the page alone.
    """

    title: str
    drawings: tuple[Drawn, ...]


@dataclass(frozen=True)
class Gallery:
    """Pictures of images with boxes, which only the page shows.

    Attributes:
        title: what they show.
        scale: preset, profile and split seed in words.
        caption: how they were chosen, and how to read them.
        shelves: from top to bottom.
        legend: (variable of the style sheet, whether the stroke is dashed, text) of every mark.
    """

    title: str
    scale: str
    caption: str
    shelves: tuple[Shelf, ...]
    legend: tuple[tuple[str, bool, str], ...] = ()
