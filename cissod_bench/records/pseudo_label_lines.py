"""A line of pseudo_labels.jsonl: what training's pseudo labels were worth, per generation and group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from cissod_bench.errors import DataFault
from cissod_bench.records.line_files import lines_of
from cissod_bench.records.run_folder import PSEUDO_LABELS

QUANTITIES = (
    "iteration", "images", "detected", "boxes", "correct", "precision", "recall", "theta", "theta_min", "theta_max",
    "w", "w_min", "w_max", "copies_labelled", "copies_labelled_max", "copies_unlabelled", "copies_unlabelled_max",
    "pool", "pool_coverage",
)  # fmt: skip
"""What reports tell of a line, in this order."""

Written: TypeAlias = dict[str, float | int | str | None]


class PseudoLabelLine(msgspec.Struct, kw_only=True, rename={"more": "(more)"}):
    """A line of the file: one group in one generation. Training makes it, the run's log holds it, reports read it.

    Attributes:
        generation: from 1.
        iteration: the last one in it.
        group: "all" or a class group.
        images: views of images of D_u that the teacher labelled.
        boxes: hidden boxes on them; None where D_u's boxes are not known.
        detected: pseudo labels, detections above the threshold of their class.
        correct: those that match a hidden box.
        precision: correct / detected, 0-1; None where nothing was detected or it cannot be judged.
        recall: correct / boxes, 0-1; None where there is no box.
        theta: threshold, mean over the group's classes; theta_min, theta_max: the least and the greatest.
        w: class weight, likewise; None for methods without.
        copies_labelled: mean copies of an image of D_l, copies_labelled_max: the most; None without resampling.
        copies_unlabelled: likewise of D_u.
        pool: images of D_u whose pseudo labels are pooled; pool_coverage: their share of D_u, 0-1.
        more: numbers of a method's own, which the file holds among the others and no reader takes; one of them
            may be named "more", which is why this field has another name in files.
    """

    generation: int
    iteration: int
    group: str
    images: int
    boxes: int | None = None
    detected: int
    correct: int | None = None
    precision: float | None = None
    recall: float | None = None
    theta: float | None = None
    theta_min: float | None = None
    theta_max: float | None = None
    pool: int | None = None
    pool_coverage: float | None = None
    copies_labelled: float | None = None
    copies_labelled_max: float | None = None
    copies_unlabelled: float | None = None
    copies_unlabelled_max: float | None = None
    w: float | None = None
    w_min: float | None = None
    w_max: float | None = None
    more: dict[str, float | int | None] = {}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> PseudoLabelLine:
        """Return the line of these fields; names that are no fields are the method's own numbers."""
        fields = {name: value for name, value in values.items() if name in ("generation", "group", *QUANTITIES)}
        return cls(**fields, more={name: value for name, value in values.items() if name not in fields})

    def written(self) -> Written:
        """Return the line as the file holds it: without class weights where the method has none."""
        lacking = ("more",) if self.w is not None else ("more", "w", "w_min", "w_max")
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name not in lacking}
        return {**fields, **self.more}


def read_lines(folder: Path) -> list[PseudoLabelLine]:
    """Return the lines of a run's file, the last of each group and generation; none where there is no file.

    Raises:
        DataFault: a line is no JSON or breaks the layout; names the file and the line.
    """
    path = folder / PSEUDO_LABELS
    lines: dict[tuple[int, str], PseudoLabelLine] = {}
    for number, text in enumerate(lines_of(path), start=1):
        if not text.strip():
            continue
        try:
            line = msgspec.json.decode(text, type=PseudoLabelLine)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataFault(
                f"{path}, line {number}: {error}.",
                remedy="mend or remove that line, or move the file away: the report leaves out what it lacks",
            ) from None
        lines[line.generation, line.group] = line
    return list(lines.values())
