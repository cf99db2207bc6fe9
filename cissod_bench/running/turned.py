"""How a run's images are turned: the task's word, or what their sizes tell before the first iteration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from cissod_bench import distributed
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.exif_evidence import SAMPLE, Evidence, Item, decide, look, reading
from cissod_bench.files.images import check_header
from cissod_bench.files.orientation import exif_of_role, shown_size
from cissod_bench.loading.sources import Source
from cissod_bench.records.record import RunRecord
from cissod_bench.running.plan import Plan
from cissod_bench.training.loop import Training


def put_right(source: Source, swapped: Collection[str]) -> Source:
    """Return a source whose doubtful sizes are those of the images, where these are at hand.

    A list of images with exchanged sizes may be wrong: what looks exchanged may be a photograph whose orientation was
    applied when its size was taken. Such an image keeps the size it had before the exchange.

    Args:
        source: as read, with the sizes of the listed files exchanged.
        swapped: the list.
    """
    names = {name: row for row in range(len(source)) if (name := source.name(row)) in swapped} if swapped else {}
    sizes = source.sizes.copy() if names else source.sizes
    for row in names.values():
        width, height = source.size(row)
        try:
            *stored, tag = check_header(source.file(row))
        except DataFault:
            continue  # told when all images are looked at
        as_annotated = [height, width]
        is_turned = list(shown_size((stored[0], stored[1]), tag)) == as_annotated
        if is_turned or (stored == as_annotated and stored != [width, height]):
            sizes[row] = as_annotated
    return replace(source, sizes=sizes)


def settle_readings(
    plan: Plan, record: RunRecord, training: Training, scored: Source, say: Callable[[str], None]
) -> Source:
    """Decide how the images of a run are turned, tell the training and the record, and return the scored images so.

    Collective. Where the task leaves it open, the headers of all labelled and scored images are read, and of some
    unlabelled ones.

    Raises:
        DataFault: the images contradict each other or do not tell; on all ranks.
        UsageFault: it is not what the run was started with.
    """
    values = {role: str(exif_of_role(plan.task.exif, role)) for role in plan.images}
    open_roles = [role for role, value in values.items() if value == "auto"]
    readings = plan.readings
    if open_roles:
        labelled = plan.manifest.counts["labelled"]
        decided = _decided(open_roles, plan, (*training.dataset.sources, scored), labelled)
        values |= decided
        readings |= {role: reading(value) for role, value in decided.items()}
        for role, value in decided.items():
            if value != "none":
                how = "turned" if value == "apply" else "not turned"
                say(
                    f"  exif        {role} images are {how} as their EXIF orientation says; their stated sizes fit that"
                )
    if record.exif and record.exif != values:
        changed = next(role for role in values if record.exif.get(role) != values[role])
        raise UsageFault(
            f"{plan.folder} holds a run whose {changed} images were read with EXIF orientation "
            f"{record.exif.get(changed)!r}; now it would be {values[changed]!r}.",
            remedy="put the task file and the images back as they were, or pass another --work-dir",
        )
    record.exif = values
    training.dataset.read_as(readings)
    return replace(scored, readings=tuple(readings.values()))


def _decided(roles: Sequence[str], plan: Plan, sources: Sequence[Source], labelled: int) -> dict[str, str]:
    """Return role -> decision; rank 0 looks, and all get what it says."""
    return distributed.from_first(
        lambda: dict(decide({role: _evidence(role, plan, sources, labelled) for role in roles}))
    )


def _evidence(role: str, plan: Plan, sources: Sequence[Source], labelled: int) -> Evidence:
    first, second, scored = sources
    rows_of = (
        (first, range(labelled)),
        (first, _sample(range(labelled, len(first)))),
        (second, _sample(range(len(second)))),
        (scored, range(len(scored))),
    )
    place, doubtful = list(plan.images).index(role), frozenset(plan.task.swapped)
    return look(item for source, rows in rows_of for item in _items(source, rows, place, doubtful))


def _sample(rows: range) -> range:
    return rows[:: max(1, -(-len(rows) // SAMPLE))]


def _items(source: Source, rows: Iterable[int], place: int, doubtful: Collection[str]) -> Iterator[Item]:
    """Yield the images of a folder that say something, with their stated sizes."""
    of_folder = source.image_folder == place
    for row in rows:
        if of_folder[row] and not (doubtful and source.name(row) in doubtful):
            try:
                yield source.file(row), *source.size(row)
            except DataFault:
                continue
