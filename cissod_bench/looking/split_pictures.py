"""Pictures of a split before any training: do the boxes sit where they should?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cissod_bench.errors import DataFault
from cissod_bench.figures.pictures import ROLES, SIGNS, DrawnBox, Picture, picture_drawing
from cissod_bench.figures.style import VARIABLES
from cissod_bench.looking.at_hand import AtHand, Photos, photos_of
from cissod_bench.looking.choice import RULE, drawn_order, first_of_each
from cissod_bench.reporting.galleries import Gallery, Shelf
from cissod_bench.reporting.groups import WORDS, roles
from cissod_bench.reporting.tables import Report
from cissod_bench.scoring.error_types import IGNORED
from cissod_bench.splitting.data_files import HIDDEN, LABELLED

_CHOSEN = (
    "For each class in turn, the one with fewest boxes first, the next image that shows a box of it, {rule}: {shown} "
    "of {all} images."
)
_PARTS = (
    (LABELLED, "train", "Labelled images (D_l)", "Boxes that training is shown. {chosen}"),
    (HIDDEN, "train", "Unlabelled images (D_u)", "Boxes that are hidden from training. {chosen}"),
    ("val", "val", "Scored images", "Boxes that detections are scored against. {chosen}"),
)

UNKNOWN = "Unlabelled images (D_u): not shown. Their boxes are not known."
"""The note on own photographs: nothing is wrong there."""


def split_report(hand: AtHand, most: int = 24) -> Report:
    """Return pictures of every part of a split; a part that cannot be shown is noted, with the reason.

    Args:
        hand: the split.
        most: pictures of D_l; the other parts have half as many.
    """
    galleries, notes = [], []
    for name, role, title, caption in _PARTS:
        path = hand.val if name == "val" else hand.file(name)
        number = most if name == LABELLED else -(-most // 2)
        try:
            galleries.append(_gallery(hand, path, role, title, caption, number))
        except DataFault as fault:
            notes.append(f"{title}: not shown. {fault.message}")
    return Report("show", hand.manifest.title, notes=tuple(notes), galleries=tuple(galleries))


def _gallery(hand: AtHand, path: Path | None, role: str, title: str, caption: str, most: int) -> Gallery:
    """Return pictures of one part.

    Raises:
        DataFault: its file or one of its images is missing or broken, or it has no box.
    """
    if path is None:
        named = hand.manifest.val.path if role == "val" else "the file"
        raise DataFault(f"{named} is not at hand.", remedy="cissod-bench make-splits, or name the --data-root")
    if path.name == HIDDEN and not hand.manifest.hidden_known:
        raise DataFault("Their boxes are not known.", remedy="cissod-bench splits show")
    photos = photos_of(hand, path, role)
    chosen = chosen_rows(photos, most)
    if not chosen:
        raise DataFault("It shows no box.", remedy="cissod-bench splits show")
    photos.read(chosen[0])
    drawings = tuple(picture_drawing(split_picture(photos, row)) for row in chosen)
    told = _CHOSEN.format(rule=RULE, shown=len(chosen), all=f"{len(photos):,}")
    scale = f"{hand.manifest.title}, split seed {hand.manifest.split_seed}"
    return Gallery(title, scale, caption.format(chosen=told), (Shelf("", drawings),), _legend(hand.manifest.groups))


def chosen_rows(photos: Photos, most: int) -> list[int]:
    """Return up to so many images: each class in turn gets its next one, the class with fewest boxes first."""
    data = photos.annotations
    counted = ~data.crowd
    boxes = np.bincount(data.box_class[counted], minlength=len(data.classes))
    lists = []
    for channel in np.argsort(boxes, kind="stable").tolist():
        rows = set(data.box_image[counted & (data.box_class == channel)].tolist())
        lists.append(drawn_order(rows, data.file_names))
    return first_of_each(lists, most)


def split_picture(photos: Photos, row: int) -> Picture:
    """Return an image with its annotated boxes, in the colours of their groups."""
    groups = photos.hand.manifest.groups
    role = roles(list(groups))
    kind_of = {name: ROLES[min(role[group], 2)] for group, names in groups.items() for name in names}
    group_of = {name: WORDS.get(group, group) for group, names in groups.items() for name in names}
    boxes = [
        DrawnBox(box, IGNORED if crowd else kind_of[name], name, words="ignored" if crowd else group_of[name])
        for box, name, crowd in photos.boxes(row)
    ]
    return Picture(photos.name(row), *photos.size(row), lambda: photos.read(row), tuple(boxes))


def _legend(groups: Mapping[str, Sequence[str]]) -> tuple[tuple[str, bool, str], ...]:
    marks = [
        (VARIABLES[SIGNS[ROLES[min(role, 2)]].colour], False, WORDS.get(group, group))
        for group, role in roles(list(groups)).items()
    ]
    ignored = SIGNS[IGNORED]
    return (*marks, (VARIABLES[ignored.colour], True, f"{ignored.sign} ignore region or crowd"))
