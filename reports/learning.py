"""AP while training: a curve per method over the iterations, and the best evaluation beside the last iteration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry
from cissod_bench.errors import DataFault
from cissod_bench.figures.curves import curve_drawing, looks_of
from cissod_bench.figures.drawing import PAGE, safe_stem
from cissod_bench.figures.learning import evaluation_frame, learning_panels
from cissod_bench.figures.pseudo_labels import averaged
from cissod_bench.records.evaluation_lines import Evaluation, read_evaluations
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import file_words, marks, scale_words, scored_model
from cissod_bench.reporting.table_plan import method_place, method_title, scored_splits, split_keys
from cissod_bench.reporting.tables import DASH, Figure, Listing, Report, Splits
from cissod_bench.scoring.points import mean_ap

CURVES = (
    "AP in points of the model whose score counts, evaluated while it trained (on {what}). Mean over n training seeds; "
    "the band is one standard deviation."
)
BEST = (
    "Last: AP after the last iteration, the headline of every table. Best: AP of the evaluation with the highest "
    "{column}, chosen on the images that are scored, so it flatters; it is a second number and in no other table. "
    "Means over n training seeds."
)
_HEADS = ("Method", "AP", "Last", "Best", "n", "At iteration")


@dataclass(frozen=True, eq=False)
class _Entrant:
    """A method as it was run and evaluated on one split at one scale.

    Attributes:
        title: as the legend prints it, with the number of training seeds.
        method: the method.
        images: that an evaluation took.
        records: of its runs.
        frame: its evaluations, averaged over the seeds.
    """

    title: str
    method: str
    images: int
    records: tuple[RunRecord, ...]
    frame: pd.DataFrame


def build(runs: Sequence[Run], splits: Splits = ()) -> Report:
    """Return the curves of every scale, task and split that was evaluated while training.

    Args:
        runs: of any state; those that are done and no variants are read.
        splits: not needed here.
    """
    methods, tasks = catalogue.list_methods(), catalogue.list_tasks()
    figures: list[Figure] = []
    listings: list[Listing] = []
    notes: list[str] = []
    for on_split, title, columns, suffix in scored_splits(runs, tasks):
        entrants = _entrants(on_split, methods, notes)
        for images in sorted({entrant.images for entrant in entrants}):
            same = [entrant for entrant in entrants if entrant.images == images]
            figures.append(_figure(same, columns, title + suffix, suffix))
            listings += _listings(same, columns, title + suffix)
    shown = tuple(listings)
    return Report("learning", "AP while training", figures=tuple(figures), notes=tuple(notes), order=7, listings=shown)


def _entrants(runs: Sequence[Run], methods: Mapping[str, Entry], notes: list[str]) -> list[_Entrant]:
    """Return the methods in the paper's order, apart by the images they were evaluated on."""
    told = marks(runs)
    together: dict[tuple[str, str, int], list[tuple[RunRecord, list[Evaluation]]]] = {}
    for run in runs:
        try:
            lines = read_evaluations(run.folder)
        except DataFault as fault:
            notes.append(f"The curves leave out a run. {fault}")
            continue
        for images in {line.images for line in lines[-1:]}:
            own = [line for line in lines if line.images == images]
            together.setdefault((run.record.method, told[run], images), []).append((run.record, own))
    entrants = []
    for method, mark, images in sorted(together, key=lambda key: (method_place(key[0]), *key[1:])):
        seeds, alone = together[method, mark, images], len({key[1] for key in together if key[0] == method}) == 1
        shown = f" [{mark}]" if mark and not alone else ""
        title = f"{method_title(methods, method)}{shown} (n = {len(seeds)})"
        frames = [evaluation_frame(lines, split_keys(record), scored_model(record)) for record, lines in seeds]
        frame = averaged(frames).assign(method=method, title=title)
        entrants.append(_Entrant(title, method, images, tuple(record for record, _ in seeds), frame))
    return entrants


def _figure(entrants: Sequence[_Entrant], columns: Sequence[str], title: str, suffix: str) -> Figure:
    """Return the curves of one split at one scale."""
    record, images = entrants[0].records[0], entrants[0].images
    frame = pd.concat([entrant.frame for entrant in entrants], ignore_index=True)
    looks = looks_of({entrant.title: entrant.method for entrant in entrants})
    panels = learning_panels(frame, looks, columns)
    across = min(len(panels), 3)
    layouts = {"": (panels, across), "_column": (panels, 2), PAGE: (panels, across)}
    what = f"{images:,} images, the same ones each time"
    stem = f"learning_{file_words(record)}_{images}images{suffix}"
    drawing = curve_drawing("AP over iterations", layouts, safe_stem(stem))
    name = f"AP while training, {title}, {images:,} images"
    return Figure(name, scale_words(record), CURVES.format(what=what), frame, drawing)


def _listings(entrants: Sequence[_Entrant], columns: Sequence[str], title: str) -> Iterator[Listing]:
    """Yield the best evaluations beside the last iterations, one listing per column they were chosen by."""
    chosen_by = sorted({record.best["column"] for entrant in entrants for record in entrant.records if record.best})
    for chosen in chosen_by:
        rows: list[dict[str, object]] = []
        lines: list[tuple[str, ...]] = []
        for entrant in entrants:
            records = [record for record in entrant.records if record.best.get("column") == chosen]
            for column in columns if records else ():
                row = _best_row(records, column)
                rows.append({"method": entrant.method, "title": entrant.title, "images": entrant.images, **row})
                first = entrant.title if column == columns[0] else ""
                aps = (_points(row["last_mean"]), _points(row["best_mean"]))
                lines.append((first, column, *aps, str(len(records)), str(row["iterations"])))
        name = f"Last and best by {chosen}: {title}, evaluated on {entrants[0].images:,} images"
        record = entrants[0].records[0]
        data = pd.DataFrame(rows).assign(preset=record.preset, task=record.task, split_seed=record.split_seed)
        note = BEST.format(column=f"AP of {chosen}")
        yield Listing(name, scale_words(record), _HEADS, tuple(lines), data, labels=2, notes=(note,))


def _best_row(records: Sequence[RunRecord], column: str) -> dict[str, object]:
    """Return the means of a column, last and best, and the iterations of the best evaluations."""
    last = [record.ap[scored_model(record)].get(column) for record in records]
    best = [record.best["ap"].get(scored_model(record), {}).get(column) for record in records]
    iterations = ", ".join(str(record.best["iteration"]) for record in records)
    return {"column": column, "last_mean": mean_ap(last), "best_mean": mean_ap(best), "iterations": iterations}


def _points(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else DASH
