"""Fig. 4: log10 of the boxes per class, in the original data set, in D_l and hidden in D_u, all tasks side by side."""

from __future__ import annotations

from collections.abc import Sequence

from cissod_bench.errors import DataFault
from cissod_bench.figures.distributions import distribution_drawing
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.box_counts import Manifests, distribution_frame, paper_order
from cissod_bench.reporting.tables import Figure, Report
from cissod_bench.splitting.manifest import Manifest

CAPTION = (
    "Classes sorted by their boxes in the original data set; the index is no class id. Area: original data set. Bars: "
    "boxes hidden in D_u. Marks: boxes in D_l, by group; the strips below show which classes a group has. Where a "
    "class has no box, which has no logarithm, its bar or mark stands at “none”."
)


def build(runs: Sequence[Run], splits: Manifests = ()) -> Report:
    """Return Fig. 4 of one split per task: one that was run, else the one with the lowest split seed.

    Args:
        runs: of any state.
        splits: manifests of the splits that were found. One without the counts, which an older version wrote, is left
            out and said to be.
    """
    chosen, notes = [], []
    for manifest in _one_per_task(runs, splits):
        try:
            distribution_frame([manifest])
        except DataFault as fault:
            notes.append(f"Fig. 4 leaves out {manifest.task}. {fault.message} {fault.remedy}")
        else:
            chosen.append(manifest)
    figures = (_figure(chosen),) if chosen else ()
    return Report("distributions", "Boxes of every class", figures=figures, notes=tuple(notes), order=4)


def _one_per_task(runs: Sequence[Run], splits: Manifests) -> list[Manifest]:
    """Return one manifest per task, in the figure's order."""
    drawn = {run.record.split_sha256 for run in runs}
    first: dict[str, Manifest] = {}
    for manifest in sorted(splits, key=lambda split: (split.split_sha256 not in drawn, split.split_seed)):
        first.setdefault(manifest.task, manifest)
    return paper_order(list(first.values()))


def _figure(chosen: Manifests) -> Figure:
    seeds = sorted({manifest.split_seed for manifest in chosen})
    each = ", ".join(f"{manifest.title} {manifest.split_seed}" for manifest in chosen)
    return Figure(
        "Figure 4: Boxes of every class",
        f"split seed {seeds[0]}" if len(seeds) == 1 else f"split seeds: {each}",
        CAPTION,
        distribution_frame(chosen),
        drawing=distribution_drawing(chosen),
    )
