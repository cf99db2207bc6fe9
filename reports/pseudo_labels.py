"""Fig. 3: precision and recall of pseudo labels per group and generation, and what a method's state did meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry
from cissod_bench.errors import DataFault
from cissod_bench.figures.curves import CurvePanel, curve_drawing, looks_of
from cissod_bench.figures.drawing import PAGE, safe_stem
from cissod_bench.figures.pseudo_labels import adapts, averaged, line_frame, quality_panels, state_panels
from cissod_bench.records.pseudo_label_lines import read_lines
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import file_words, marks, scale_words
from cissod_bench.reporting.table_plan import method_place, method_title, scored_splits, split_keys
from cissod_bench.reporting.tables import Figure, Report, Splits

QUALITY = (
    "Pseudo labels that training used, over all images of D_u that it saw in a generation, against their hidden "
    "boxes: same class, IoU of at least 0.5. Precision: the share of pseudo labels that are right; a gap, where there "
    "is none. Recall: the share of hidden boxes that are found. Generations without unlabelled images have no point. "
    "Mean over n training seeds; the band is one standard deviation."
)
STATE = (
    "At the end of each generation, mean over n training seeds. Weight and threshold: mean over a group's classes; the "
    "band reaches from the least to the greatest class. Copies: times that an image is drawn where others are drawn "
    "once, mean and most over images. Pool: images of D_u whose pseudo labels are remembered."
)


@dataclass(frozen=True, eq=False)
class _Entrant:
    """A method as it was run on one split at one scale.

    Attributes:
        name: the method's, and what tells it from others of its method (``averaging.marks``); what files are called.
        title: as the legend prints it, with the number of training seeds.
        method: the method.
        frame: its lines, averaged over the seeds.
    """

    name: str
    title: str
    method: str
    frame: pd.DataFrame


def build(runs: Sequence[Run], splits: Splits = ()) -> Report:
    """Return Fig. 3 of every scale, task and split whose runs noted how good their pseudo labels were.

    Below it stands a figure per method that has class weights, thresholds that move, or a pool.

    Args:
        runs: of any state; those that are done and no variants are read.
        splits: not needed here.
    """
    methods, tasks = catalogue.list_methods(), catalogue.list_tasks()
    figures: list[Figure] = []
    notes: list[str] = []
    for on_split, title, _, suffix in scored_splits(runs, tasks):
        entrants = _entrants(on_split, methods, notes)
        known = [entrant for entrant in entrants if _is_judged(entrant.frame)]
        if entrants and not known:
            notes.append(f"Fig. 3 leaves out {title + suffix}: nobody knows the boxes of its unlabelled images.")
        figures += (
            _figures(on_split[0].record, entrants, title + suffix, suffix, judged=bool(known)) if entrants else []
        )
    return Report("pseudo_labels", "Pseudo labels", figures=tuple(figures), notes=tuple(notes), order=3)


def _entrants(runs: Sequence[Run], methods: Mapping[str, Entry], notes: list[str]) -> list[_Entrant]:
    """Return the methods in the paper's order; a run whose file cannot be read is noted and left out."""
    told = marks(runs)
    together: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for run in runs:
        try:
            lines = read_lines(run.folder)
        except DataFault as fault:
            notes.append(f"Fig. 3 leaves out a run. {fault}")
            continue
        if lines:
            frame = line_frame(lines, split_keys(run.record))
            together.setdefault((run.record.method, told[run]), []).append(frame)
    entrants = []
    for method, mark in sorted(together, key=lambda key: (method_place(key[0]), key[1])):
        frames, alone = together[method, mark], sum(other == method for other, _ in together) == 1
        shown = f" [{mark}]" if mark and not alone else ""
        title = f"{method_title(methods, method)}{shown} (n = {len(frames)})"
        entrants.append(_Entrant(method + shown, title, method, averaged(frames).assign(method=method, title=title)))
    return entrants


def _is_judged(frame: pd.DataFrame) -> bool:
    """Return whether pseudo labels were compared with hidden boxes; those of a user's photographs are unknown."""
    return bool(frame.loc[frame["quantity"].isin(["precision", "recall"]), "mean"].notna().any())


def _figures(record: RunRecord, entrants: Sequence[_Entrant], title: str, suffix: str, *, judged: bool) -> list[Figure]:
    """Return Fig. 3 of one split at one scale, unless no boxes are known, and what the methods' own states did."""
    frame = pd.concat([entrant.frame for entrant in entrants], ignore_index=True)
    groups = [group for group in record.groups if group in set(frame["group"])]
    scale = scale_words(record)
    stem = f"pseudo_labels_{file_words(record)}{suffix}"
    panels = quality_panels(frame, looks_of({entrant.title: entrant.method for entrant in entrants}), groups)
    name = f"Figure 3: Pseudo labels, {title}"
    figures = [_quality(panels, len(groups), frame, name, scale, safe_stem(stem))] if judged else []
    for entrant in entrants:
        if adapts(entrant.frame):
            state_title = f"Weights, thresholds, copies and pool: {entrant.title}, {title}"
            state_stem = safe_stem(f"{stem}_{entrant.name}")
            numbers = pd.DataFrame() if judged else entrant.frame  # else they are among those of Fig. 3
            figures.append(_state(state_panels(entrant.frame, groups), state_title, scale, state_stem, numbers))
    return figures


def _quality(panels: list[CurvePanel], number: int, frame: pd.DataFrame, title: str, scale: str, stem: str) -> Figure:
    """Return Fig. 3 of so many groups, print in one row where there is room, and in a column with a row per group."""
    by_group = [panel for place in range(number) for panel in panels[place::number]]
    layouts = {"": (panels, number if number > 2 else 2 * number), "_column": (by_group, 2), PAGE: (panels, number)}
    return Figure(title, scale, QUALITY, frame, curve_drawing("Precision and recall of pseudo labels", layouts, stem))


def _state(panels: list[CurvePanel], title: str, scale: str, stem: str, numbers: pd.DataFrame) -> Figure:
    """Return what a method's own state did."""
    layouts = {"": (panels, len(panels)), "_column": (panels, 2), PAGE: (panels, 2)}
    drawing = curve_drawing("Weights, thresholds, copies and pool", layouts, stem)
    return Figure(title, scale, STATE, numbers, drawing)
