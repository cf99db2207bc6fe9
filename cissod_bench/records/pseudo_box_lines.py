"""A line of pseudo_boxes.jsonl: the pseudo labels that training used on one unlabelled image in one generation."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cissod_bench.errors import DataFault
from cissod_bench.records.line_files import lines_of
from cissod_bench.records.run_folder import PSEUDO_BOXES


class PseudoBoxLine(msgspec.Struct, kw_only=True, frozen=True):
    """The pseudo labels of an image; a few images of a generation have a line, chosen by their ids alone.

    Attributes:
        generation: from 1.
        iteration: the last one in it.
        image: id of the image.
        boxes: x, y, width, height in pixels of the original image, M of them; none where nothing was sure enough.
        classes: names, M of them.
        scores: in [0, 1], M of them.
    """

    generation: int
    iteration: int
    image: int
    boxes: list[tuple[float, float, float, float]]
    classes: list[str]
    scores: list[float]

    def written(self) -> bytes:
        """Return the line as the file holds it."""
        return msgspec.json.encode(self) + b"\n"


def read_pseudo_boxes(folder: Path) -> list[PseudoBoxLine]:
    """Return the lines of a run, the last of each image and generation; none where there is no file.

    Raises:
        DataFault: a line is no JSON or breaks the layout; names the file and the line.
    """
    path = folder / PSEUDO_BOXES
    lines: dict[tuple[int, int], PseudoBoxLine] = {}
    remedy = "remove that line, or move the file away: the report leaves out what it lacks"
    for number, text in enumerate(lines_of(path), start=1):
        try:
            line = msgspec.json.decode(text, type=PseudoBoxLine)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataFault(f"{path}, line {number}: {error}.", remedy=remedy) from None
        if not len(line.boxes) == len(line.classes) == len(line.scores):
            raise DataFault(f"{path}, line {number}: boxes, classes and scores differ in number.", remedy=remedy)
        lines[line.generation, line.image] = line
    return list(lines.values())
