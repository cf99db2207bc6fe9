"""What detectors saw: pictures of found and missed boxes, types of errors, confusions, AP by size and by boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry
from cissod_bench.errors import DataFault
from cissod_bench.figures.class_scatter import ScatterPanel, scatter_drawing
from cissod_bench.figures.confusion import MOST_CLASSES, confusion_drawing
from cissod_bench.figures.drawing import safe_stem
from cissod_bench.looking.at_hand import AtHand, Photos, Places, photos_of, run_at_hand
from cissod_bench.looking.choice import RULE
from cissod_bench.looking.numbers import Watched, confusion_panel, error_listing, size_listing, taken_listing
from cissod_bench.looking.pseudo_pictures import pseudo_gallery
from cissod_bench.looking.scenes import Pair, View, chosen_images, legend, picture_of
from cissod_bench.looking.seen import Seen, Truths, look_at, predictions_of
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import PSEUDO_BOXES, PSEUDO_LABELS, Run
from cissod_bench.reporting.averaging import file_words, marks, scale_words, scored_model
from cissod_bench.reporting.galleries import Gallery, Shelf
from cissod_bench.reporting.groups import WORDS
from cissod_bench.reporting.table_plan import is_competitor, method_place, method_title, scored_splits
from cissod_bench.reporting.tables import Figure, Listing, Report, Splits
from cissod_bench.scoring.points import mean_ap

FEATURED, IMAGES, ALONE, PAIRED = 3, 6, 9, 4
"""Methods whose pictures are shown; images of each, where there are several and where there is one; boxes of a pair."""

_PAIR = ("ours", "soft-teacher")
_CONFUSED = (
    "Of 100 boxes of the class at the left, how many were found as it (on the diagonal), taken for another class, or "
    "missed; IoU of at least 0.5, all training seeds together. Each run shows its best-scored detections, as many as "
    "there are boxes to find. Lines part the groups."
)
_SCATTER = (
    "A mark per class: its boxes in D_l, and its AP in points, mean over n training seeds. Classes without a box in "
    "D_l or without an AP have none."
)
_PICTURES = (
    "Training seed {seed}. Each run shows its best-scored detections, as many as there are boxes to find in all scored "
    "images. Which images are shown depends on no result: of three, two show a box of the {group}, {rule}."
)
_PAIRS = (
    "Training seed {seed}. Boxes of the {group} that one run found and the other did not: {count} in all; shown are "
    "the first, one per image, {rule}. Dashed: the box; solid: what was detected."
)


@dataclass
class _Gathered:
    """A report in the making.

    Attributes:
        figures, listings, galleries, notes: of the report.
        runs: that were to be looked at.
        reasons: why some cannot be -> of how many.
        lacking: task and split seed of the splits that are not at hand, and the task's title.
    """

    figures: list[Figure] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    runs: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    lacking: dict[tuple[str, int], str] = field(default_factory=dict)

    def all_notes(self) -> tuple[str, ...]:
        """Return the notes, in one sentence each what is missing of many runs and splits."""
        notes = list(self.notes)
        for reason, count in self.reasons.items():
            what = "types of errors, confusions and pictures"
            notes.append(f"No {what} of {count} of {self.runs} runs, which {reason}.")
        if self.lacking:
            task, seed = next(iter(self.lacking))
            named = "; ".join(f"{title}, seed {number}" for (_, number), title in self.lacking.items())
            notes.append(
                f"No AP against boxes in D_l of splits that are not at hand ({named}). One is drawn by: "
                f"cissod-bench make-splits --task {task} --split-seed {seed}"
            )
        return tuple(dict.fromkeys(notes))


def build(runs: Sequence[Run], splits: Splits = (), places: Places | None = None) -> Report:
    """Return what the runs of every scale, task and split saw, as far as predictions and images are at hand.

    Args:
        runs: of any state; those that are done and no variants are read.
        splits: manifests of the splits that were found, for the boxes in D_l.
        places: where data and splits lie; None looks at no prediction and no image.
    """
    methods, tasks = catalogue.list_methods(), catalogue.list_tasks()
    gathered, truths = _Gathered(), Truths()
    for on_split, title, _, suffix in scored_splits(runs, tasks):
        _scatter(gathered, on_split, splits, methods, title, suffix)
        if places is not None:
            watched = list(_watched(gathered, on_split, methods, places, truths, title + suffix))
            _look(gathered, watched, methods, title + suffix, suffix)
    return Report(
        "looking",
        "What detectors saw",
        figures=tuple(gathered.figures),
        notes=gathered.all_notes(),
        order=9,
        listings=tuple(gathered.listings),
        galleries=tuple(gathered.galleries),
    )


def _together(runs: Sequence[Run], methods: Mapping[str, Entry]) -> Iterator[tuple[str, str, list[Run]]]:
    """Yield method, title and runs by training seed; what tells runs of one method apart stands behind its title."""
    told = marks(runs)
    choices: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        choices.setdefault((run.record.method, told[run]), []).append(run)
    for method, mark in sorted(choices, key=lambda key: (method_place(key[0]), key[1])):
        title = method_title(methods, method) + (f" [{mark}]" if mark else "")
        yield method, title, sorted(choices[method, mark], key=lambda run: run.record.seed)


def _watched(
    gathered: _Gathered,
    runs: Sequence[Run],
    methods: Mapping[str, Entry],
    places: Places,
    truths: Truths,
    title: str,
) -> Iterator[Watched]:
    """Yield the methods whose runs can be looked at; why others cannot is noted."""
    hands = _hands(runs, places)
    gathered.runs += len(runs)
    for method, name, seeds in _together(runs, methods):
        seen = []
        for run in seeds:
            try:
                looked = look_at(run, hands, truths)
            except DataFault as fault:
                gathered.notes.append(f"Not looked at: a run of {title}. {fault.message}")
                continue
            if isinstance(looked, Seen):
                seen.append(looked)
            else:
                gathered.reasons[looked] += 1
        if seen:
            yield Watched(method, name, tuple(seen))


def _hands(runs: Sequence[Run], places: Places) -> dict[Run, AtHand | None]:
    """Return run -> what there is of its split, which is looked for once; None for runs that have no predictions."""
    known: dict[tuple[str, str], AtHand | None] = {}
    hands: dict[Run, AtHand | None] = {}
    for run in runs:
        if predictions_of(run) is None:
            hands[run] = None
            continue
        key = run.record.split_sha256, str(sorted(run.record.exif.items()))
        if known.get(key) is None:
            known[key] = run_at_hand(run, places)
        hands[run] = known[key]
    return hands


def _look(
    gathered: _Gathered, watched: Sequence[Watched], methods: Mapping[str, Entry], title: str, suffix: str
) -> None:
    """Add what the runs of one split at one scale saw."""
    if not watched:
        return
    record = watched[0].seen[0].run.record
    scale = scale_words(record)
    make = (error_listing, taken_listing, size_listing)
    gathered.listings += [listing(watched, title, scale) for listing in make]
    featured = _featured(watched, methods)
    if sum(map(len, record.groups.values())) <= MOST_CLASSES:
        drawing = confusion_drawing([confusion_panel(own) for own in featured], _stem("confusion", record, suffix))
        name = f"What every class was taken for: {title}"
        gathered.figures.append(Figure(name, scale, _CONFUSED, pd.DataFrame(), drawing))
    try:
        _pictures(gathered, featured, watched, title, scale, suffix)
    except DataFault as fault:
        gathered.notes.append(f"{title}: no pictures. {fault.message}")


def _featured(watched: Sequence[Watched], methods: Mapping[str, Entry]) -> list[Watched]:
    """Return the methods that pictures are shown of: the paper's and its baseline first, competitors before others."""
    ordered = sorted(
        watched,
        key=lambda own: (own.method not in _PAIR, not is_competitor(methods, own.method), method_place(own.method)),
    )
    return sorted(ordered[:FEATURED], key=lambda own: method_place(own.method))


def _pictures(
    gathered: _Gathered, featured: Sequence[Watched], watched: Sequence[Watched], title: str, scale: str, suffix: str
) -> None:
    """Add pictures of the featured methods, and of what one of the paper's method and its baseline found alone.

    Raises:
        DataFault: an image is missing or broken.
    """
    hand = featured[0].seen[0].hand
    assert hand.val is not None
    photos = photos_of(hand, hand.val, "val")
    views = [View(own.title, own.seen[0], photos) for own in featured]
    views[0].photos.read(0)
    places = chosen_images(views[0], IMAGES if len(views) > 1 else ALONE)
    group = _rarest(featured[0])
    if len(views) > 1:
        shelves = [Shelf(views[0].names[place], tuple(picture_of(view, place) for view in views)) for place in places]
    else:
        shelves = [Shelf("", tuple(picture_of(views[0], place) for place in places))]
    seeds = ", ".join(map(str, sorted({view.seen.run.record.seed for view in views})))
    caption = _PICTURES.format(group=group, rule=RULE, seed=seeds)
    gathered.galleries.append(Gallery(f"Scored images: {title}", scale, caption, tuple(shelves), legend()))
    read: dict[Path, Photos] = {}
    for own in featured:
        _pseudo_labels(gathered, own, read, title, scale)
    gathered.figures += _pairs(watched, photos, title, scale, suffix)


def _pseudo_labels(gathered: _Gathered, watched: Watched, read: dict[Path, Photos], title: str, scale: str) -> None:
    """Add the pseudo labels that the first run of a method used, or why they cannot be shown."""
    seen = watched.seen[0]
    try:
        gallery = pseudo_gallery(seen.run, seen.hand, read, f"{watched.title}, {title}", scale)
    except DataFault as fault:
        gathered.notes.append(f"{title}: no pictures of the pseudo labels of {watched.title}. {fault.message}")
        return
    if gallery is not None:
        gathered.galleries.append(gallery)
    elif (seen.run.folder / PSEUDO_LABELS).is_file():
        gathered.notes.append(f"{title}: a run of {watched.title} kept no pseudo labels to show ({PSEUDO_BOXES}).")


def _rarest(watched: Watched) -> str:
    group = list(watched.groups)[-1]
    return WORDS.get(group, group)


def _pairs(watched: Sequence[Watched], photos: Photos, title: str, scale: str, suffix: str) -> Iterator[Figure]:
    """Yield what the paper's method found and its baseline did not, and the other way round; on their first seed."""
    first = {own.method: own for own in reversed(watched)}
    if not set(_PAIR) <= first.keys():
        return
    sides = [first[method] for method in _PAIR]
    seeds = [{seen.run.record.seed: seen for seen in side.seen} for side in sides]
    common = sorted(set(seeds[0]) & set(seeds[1]))
    if not common:
        return
    views = [View(side.title, own[common[0]], photos) for side, own in zip(sides, seeds, strict=True)]
    for finder, other in ((views[0], views[1]), (views[1], views[0])):
        pair = Pair(finder, other)
        record = finder.seen.run.record
        stem = _stem("pair", record, f"{suffix}_{record.method}")
        caption = _PAIRS.format(group=_rarest(sides[0]), count=len(pair.rows), rule=RULE, seed=common[0])
        for picture in pair.pictures(PAIRED):
            picture.read()  # the fault of one that is missing, before any is drawn
        drawing = pair.drawing(PAIRED, stem) if pair.rows else None
        yield Figure(f"{pair.title}: {title}", scale, caption, pd.DataFrame(), drawing)


def _stem(kind: str, record: RunRecord, suffix: str) -> str:
    """Return what the files of a figure are called; ``suffix`` tells draws of one task and seed apart, as in titles."""
    return safe_stem(f"{kind}_{file_words(record)}{suffix}")


def _scatter(
    gathered: _Gathered, runs: Sequence[Run], splits: Splits, methods: Mapping[str, Entry], title: str, suffix: str
) -> None:
    """Add AP of every class against its boxes in D_l."""
    record, title = runs[0].record, title + suffix
    manifest = next((split for split in splits if split.split_sha256 == record.split_sha256), None)
    if manifest is None:
        gathered.lacking[record.task, record.split_seed] = title
        return
    boxes = {name: counts.boxes for name, counts in manifest.per_class.items()}
    panels, lines = [], []
    for method, name, seeds in _together(runs, methods):
        aps = [run.record.per_class.get(scored_model(run.record), {}) for run in seeds]
        values = {own: mean_ap(of_run.get(own) for of_run in aps) for own in boxes}
        panels.append(ScatterPanel(f"{name} (n = {len(seeds)})", values))
        group_of = manifest.group_of
        lines += [
            {"task": record.task, "split_sha256": record.split_sha256, "method": method, "title": name, "class": own,
             "group": group_of[own], "boxes": boxes[own], "ap": value, "n": len(seeds)}
            for own, value in values.items()
        ]  # fmt: skip
    drawing = scatter_drawing(panels, record.groups, boxes, _stem("scatter", record, suffix))
    name = f"AP against boxes in D_l: {title}"
    gathered.figures.append(Figure(name, scale_words(record), _SCATTER, pd.DataFrame(lines), drawing))
