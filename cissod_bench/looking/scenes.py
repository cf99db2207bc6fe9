"""Pictures of what runs saw on the scored images, and the rules by which these images are chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cissod_bench.figures.drawing import Drawing, safe_stem
from cissod_bench.figures.pictures import SIGNS, DrawnBox, Picture, picture_drawing, row_drawing
from cissod_bench.figures.style import VARIABLES
from cissod_bench.looking.at_hand import Photos
from cissod_bench.looking.choice import drawn_order, first_of_each
from cissod_bench.looking.seen import Seen
from cissod_bench.scoring.confusions import BACKGROUND, FOUND, MISSED, POOR, WRONG_CLASS
from cissod_bench.scoring.error_types import IGNORED

_WORDS = {
    FOUND: "found",
    WRONG_CLASS: "found as another class",
    POOR: "overlaps a box by less than half, or one that is found already",
    BACKGROUND: "detected where nothing is",
}


def legend(*, hidden: bool = False) -> tuple[tuple[str, bool, str], ...]:
    """Return the legend of pictures with detections: variable of the style sheet, dashed, text.

    Args:
        hidden: whether the dashed boxes are D_u's hidden ones.
    """
    marks = [(SIGNS[kind], False, words) for kind, words in _WORDS.items()]
    marks.append((SIGNS[MISSED], True, f"a box that was {'hidden and not found' if hidden else 'missed'}"))
    return tuple((VARIABLES[mark.colour], dashed, f"{mark.sign} {text}") for mark, dashed, text in marks)


@dataclass(frozen=True)
class View:
    """A run's detections with the images that they are drawn on.

    Attributes:
        title: of the method.
        seen: what the run saw.
        photos: the scored images.
    """

    title: str
    seen: Seen
    photos: Photos

    @cached_property
    def _row_of(self) -> dict[int, int]:
        return {image_id: row for row, image_id in enumerate(self.photos.annotations.image_ids.tolist())}

    @cached_property
    def names(self) -> list[str]:
        """File names by their place among the scored images."""
        return [self.photos.name(self._row_of[image_id]) for image_id in self.seen.truth.image_ids.tolist()]

    def picture(self, place: int, title: str = "") -> Picture:
        """Return a scored image with its boxes and the detections that are shown.

        Args:
            place: among the scored images, in the order of their ids.
            title: above it; by default the method's with what became of the boxes.
        """
        boxes = (*self._annotated(place), *self._detected(place))
        return self.drawn(place, boxes, title or f"{self.title}: {told(boxes)}")

    def drawn(self, place: int, boxes: Sequence[DrawnBox], title: str) -> Picture:
        """Return a scored image with some boxes."""
        row = self._row_of[int(self.seen.truth.image_ids[place])]
        return Picture(title, *self.photos.size(row), lambda: self.photos.read(row), tuple(boxes))

    def _annotated(self, place: int) -> list[DrawnBox]:
        return [self.annotated(row) for row in np.flatnonzero(self.seen.truth.image == place).tolist()]

    def annotated(self, row: int) -> DrawnBox:
        """Return a scored box; one that was found has no label, for its detection has one."""
        truth, kind = self.seen.truth, self.seen.outcomes.boxes[row]
        return DrawnBox(_box(truth.boxes[row]), kind, truth.class_names[truth.channel[row]], quiet=kind == FOUND)

    def _detected(self, place: int) -> list[DrawnBox]:
        shown = self.seen.outcomes.shown
        rows = np.flatnonzero(self.seen.matching.found.image[:shown] == place).tolist()
        kept = [row for row in rows if self.seen.outcomes.detections[row] != IGNORED]
        return [self.detected(row) for row in reversed(kept)]  # the best one last, on top

    def detected(self, row: int) -> DrawnBox:
        """Return a shown detection."""
        found = self.seen.matching.found
        name = self.seen.truth.class_names[found.channel[row]]
        return DrawnBox(_box(found.boxes[row]), self.seen.outcomes.detections[row], name, float(found.scores[row]))


def _box(row: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float, float]:
    x, y, width, height = row.tolist()
    return x, y, width, height


def told(boxes: Sequence[DrawnBox]) -> str:
    """Return what became of the boxes of an image in words, "2 found, 1 missed"."""
    counts = Counter(box.kind for box in boxes if box.score is None)
    words = [f"{counts[kind]} {kind}" for kind in (FOUND, WRONG_CLASS, MISSED) if counts[kind]]
    false = sum(box.kind in (BACKGROUND, POOR) for box in boxes)
    return ", ".join([*words, *([f"{false} false"] if false else [])]) or "nothing there"


def chosen_images(view: View, most: int) -> list[int]:
    """Return places of scored images by a rule that knows the boxes and no result.

    Two of three show a box of the rarest group, the third another box; each in the order of ``drawn_order``.
    """
    truth, groups = view.seen.truth, view.seen.columns
    rare = np.isin(truth.channel, groups[list(groups)[-1]]) & ~truth.crowd
    with_rare = set(truth.image[rare].tolist())
    others = set(truth.image[~truth.crowd].tolist()) - with_rare
    ordered = drawn_order(with_rare, view.names)
    return first_of_each([ordered[::2], ordered[1::2], drawn_order(others, view.names)], most)


def picture_of(view: View, place: int) -> Drawing:
    """Return a scored image as a drawing for the page."""
    return picture_drawing(view.picture(place))


@dataclass(frozen=True)
class Pair:
    """Boxes of the rarest group that one run found and another did not.

    Attributes:
        finder: the run that found them.
        other: the run that did not.
        rows: the boxes, in the order of ``drawn_order`` of their images, one an image first.
    """

    finder: View
    other: View

    @cached_property
    def rows(self) -> list[int]:
        """The boxes, by the order of their images."""
        truth, columns = self.finder.seen.truth, self.finder.seen.columns
        rare = set(columns[list(columns)[-1]])
        mine, theirs = self.finder.seen.outcomes.boxes, self.other.seen.outcomes.boxes
        rows = [
            row for row, channel in enumerate(truth.channel.tolist())
            if channel in rare and mine[row] == FOUND and theirs[row] in (MISSED, WRONG_CLASS)
        ]  # fmt: skip
        place = {image: order for order, image in enumerate(drawn_order(set(truth.image[rows].tolist()), self.names))}
        return sorted(rows, key=lambda row: place[int(truth.image[row])])

    @property
    def names(self) -> list[str]:
        """File names of the scored images."""
        return self.finder.names

    @property
    def title(self) -> str:
        """What the pictures show."""
        return f"Found by {self.finder.title}, not found by {self.other.title}"

    def pictures(self, most: int) -> list[Picture]:
        """Return the first boxes, each of an image of its own: what found it, and what the other one took it for."""
        truth, pictures = self.finder.seen.truth, dict[int, Picture]()
        for row in self.rows:
            place = int(truth.image[row])
            if place not in pictures and len(pictures) < most:
                pictures[place] = self._picture(row, place)
        return list(pictures.values())

    def _picture(self, row: int, place: int) -> Picture:
        mine, theirs = self.finder.seen, self.other.seen
        name, taken = mine.truth.class_names[mine.truth.channel[row]], int(theirs.outcomes.taken_for[row])
        boxes = [self.finder.annotated(row), self.finder.detected(int(np.flatnonzero(mine.matching.taken == row)[0]))]
        if taken >= 0:
            shown = theirs.outcomes.shown
            on_it = (theirs.matching.other.row == row) & (theirs.matching.found.channel == taken)
            wrong = (on_it & theirs.matching.wrong)[:shown]
            boxes.insert(1, self.other.detected(int(np.flatnonzero(wrong)[0])))
        became = f"{theirs.truth.class_names[taken]} to" if taken >= 0 else "missed by"
        return self.finder.drawn(place, boxes, f"{name}: {became} {self.other.title}")

    def drawing(self, most: int, stem: str) -> Drawing:
        """Return the pictures in one row."""
        return row_drawing(self.title, self.pictures(most), safe_stem(stem), most)
