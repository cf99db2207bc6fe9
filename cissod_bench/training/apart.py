"""The images of a run before it starts: none of D_l, D_u and the scored ones is another one's file."""

from __future__ import annotations

from pathlib import Path

from cissod_bench.same_files import Listed, check_files, keyed
from cissod_bench.split_files import LABELLED, UNLABELLED
from cissod_bench.training.data import Source
from cissod_bench.training.plan import Plan


def check_apart(plan: Plan, labelled: Source, unlabelled: Source, scored: Source | None) -> None:
    """Refuse an image file that stands in two records: a split may have been drawn before anybody looked.

    Args:
        plan: of the run.
        labelled: the images of D_l.
        unlabelled: those of D_u.
        scored: those that are scored, None where none are.

    Raises:
        DataFault: there is one.
    """
    lists = [_listed(labelled, plan.split / LABELLED), _listed(unlabelled, plan.split / UNLABELLED)]
    if scored is not None:
        lists.append(_listed(scored, plan.val, scored=True))
    check_files(lists, plan.task.named)


def _listed(source: Source, path: Path, *, scored: bool = False) -> Listed:
    return keyed(
        Listed(
            path=path,
            ids=source.image_ids,
            places=source.image_folder,
            folders=source.folders,
            names=lambda rows: [source.name(row) for row in rows.tolist()],
            scored=scored,
        )
    )
