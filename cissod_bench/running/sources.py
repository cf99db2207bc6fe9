"""The images a run trains on: none of D_l, D_u and the scored ones is another one's file."""

from __future__ import annotations

from pathlib import Path

from cissod_bench.annotations.reading import read_annotations
from cissod_bench.annotations.same_files import Listed, check_files, keyed
from cissod_bench.loading.sources import Source, source_of
from cissod_bench.running.plan import Plan
from cissod_bench.running.turned import put_right
from cissod_bench.splitting.data_files import LABELLED, UNLABELLED


def sources(plan: Plan, scored: Source | None = None) -> tuple[Source, Source]:
    """Return the two sources of a run: D_l with its boxes and D_u without any.

    For the oracle all images are in the first, with the hidden boxes; for the supervised row the second is not drawn.
    Where images of D_u may be promoted, they stand behind those of D_l in the first, too, without boxes.

    Raises:
        DataFault: an image file stands in two records of D_l, D_u and the scored images.
    """
    labelled, unlabelled = (_part(plan, name) for name in ("labelled.json", "unlabelled.json"))
    check_apart(plan, labelled, unlabelled, scored)
    unlabelled = unlabelled.without_boxes()
    if plan.method.images == "oracle":
        labelled = labelled + _part(plan, "hidden.json")
    if plan.method.images == "promoted":
        labelled = labelled + unlabelled
    return labelled, unlabelled


def _part(plan: Plan, name: str) -> Source:
    with read_annotations(plan.split / name, naming=plan.naming, doubtful=plan.task.swapped) as file:
        return put_right(source_of(file, plan.images, "train", plan.readings), plan.task.swapped)


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
