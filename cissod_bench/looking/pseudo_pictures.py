"""Pictures of the pseudo labels that training used, beside the hidden boxes where there are any, over generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cissod_bench.errors import DataFault
from cissod_bench.figures.pictures import PSEUDO_LABEL, SIGNS, DrawnBox, Picture, picture_drawing
from cissod_bench.figures.style import VARIABLES
from cissod_bench.looking.at_hand import AtHand, Photos, photos_of
from cissod_bench.looking.scenes import legend, told
from cissod_bench.records.pseudo_box_lines import PseudoBoxLine, read_pseudo_boxes
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.galleries import Gallery, Shelf
from cissod_bench.scoring.boxes import Detections, GroundTruth
from cissod_bench.scoring.confusions import FOUND, outcomes
from cissod_bench.scoring.error_types import IGNORED, error_types
from cissod_bench.scoring.matching import match
from cissod_bench.splitting.data_files import HIDDEN, UNLABELLED

GENERATIONS, IMAGES = 4, 4
"""Pictures side by side, and one below the other."""

CAPTION = (
    "Training seed {seed}. The pseudo labels that training used in the generation named above each picture{beside}. "
    "Which images are kept for this is decided by their ids alone; shown are those that the most of these generations "
    "drew, with a box of the rarest group first."
)


def pseudo_gallery(run: Run, hand: AtHand, read: dict[Path, Photos], title: str, scale: str) -> Gallery | None:
    """Return a run's pseudo labels over generations; None where it kept none.

    Args:
        run: the run.
        hand: its split.
        read: the files of splits that were read before, which takes long where they are large; one more is put there.
        title: of method and task.
        scale: in words.

    Raises:
        DataFault: the run's or the split's file is missing or broken, or an image cannot be read.
    """
    lines = read_pseudo_boxes(run.folder)
    if not lines:
        return None
    hidden, unlabelled = hand.file(HIDDEN), hand.file(UNLABELLED)
    path = hidden or unlabelled
    if path is None:
        raise DataFault(f"{hand.folder / HIDDEN} is not at hand.", remedy="cissod-bench make-splits")
    photos = read[path] = read.get(path) or photos_of(hand, path, "train")
    judged = hidden is not None and len(photos.annotations.boxes) > 0
    generations = _spread(sorted({line.generation for line in lines}), GENERATIONS)
    of_image: dict[int, dict[int, PseudoBoxLine]] = {}
    for line in lines:
        if line.generation in generations:
            of_image.setdefault(line.image, {})[line.generation] = line
    shelves = [_shelf(photos, row, of_image[image], judged) for image, row in _chosen(photos, of_image)]
    if not shelves:
        raise DataFault(f"{path} has none of the images whose pseudo labels were kept.", remedy="cissod-bench splits")
    beside = ", beside the hidden boxes" if judged else "; the hidden boxes are not known"
    marks = legend(hidden=True) if judged else ((VARIABLES[SIGNS[PSEUDO_LABEL].colour], False, PSEUDO_LABEL),)
    caption = CAPTION.format(seed=run.record.seed, beside=beside)
    return Gallery(f"Pseudo labels: {title}", scale, caption, tuple(shelves), marks)


def _spread(values: Sequence[int], most: int) -> list[int]:
    """Return up to so many of some values, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[place] for place in places.tolist()]


def _chosen(photos: Photos, of_image: Mapping[int, Mapping[int, PseudoBoxLine]]) -> list[tuple[int, int]]:
    """Return (id, row) of the images that are shown."""
    row_of = {image: row for row, image in enumerate(photos.annotations.image_ids.tolist())}
    groups = photos.hand.manifest.groups
    rare = set(groups[list(groups)[-1]])

    def place(image: int) -> tuple[int, bool]:
        names = {name for _, name, _ in photos.boxes(row_of[image])}
        return -len(of_image[image]), not names & rare

    known = [image for image in of_image if image in row_of]  # in the order of the file, which no result decided
    return [(image, row_of[image]) for image in sorted(known, key=place)[:IMAGES]]


def _shelf(photos: Photos, row: int, lines: Mapping[int, PseudoBoxLine], judged: bool) -> Shelf:
    """Return an image's pictures, one per generation."""
    photos.read(row)  # the fault of a missing image, before any is drawn
    pictures = []
    for generation in sorted(lines):
        boxes = judged_boxes(photos, row, lines[generation]) if judged else _plain(lines[generation])
        title = f"Generation {generation}: {told(boxes) if judged else f'{len(boxes)} pseudo labels'}"
        pictures.append(Picture(title, *photos.size(row), lambda: photos.read(row), tuple(boxes)))
    return Shelf(photos.name(row), tuple(map(picture_drawing, pictures)))


def _plain(line: PseudoBoxLine) -> list[DrawnBox]:
    """Return pseudo labels that nothing is known to judge by."""
    columns = zip(line.boxes, line.classes, line.scores, strict=True)
    return [DrawnBox(box, PSEUDO_LABEL, name, score) for box, name, score in columns]


def judged_boxes(photos: Photos, row: int, line: PseudoBoxLine) -> list[DrawnBox]:
    """Return an image's hidden boxes and pseudo labels, by what became of them."""
    truth, found = _truth(photos, row), _found(photos, line)
    matching = match(truth, found)
    result = outcomes(matching, list(error_types(matching, {}).kinds), everything=True)
    names = truth.class_names
    hidden = [
        DrawnBox(_box(truth.boxes[box]), kind, names[truth.channel[box]], quiet=kind == FOUND)
        for box, kind in enumerate(result.boxes)
    ]
    columns = (matching.found.boxes, matching.found.channel.tolist(), matching.found.scores.tolist())
    used = [
        DrawnBox(_box(box), kind, names[channel], score)
        for box, channel, score, kind in zip(*columns, result.detections, strict=True)
        if kind != IGNORED
    ]
    return [*hidden, *reversed(used)]


def _box(row: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float, float]:
    x, y, width, height = row.tolist()
    return x, y, width, height


def _truth(photos: Photos, row: int) -> GroundTruth:
    """Return one image's boxes as scorers take them."""
    data = photos.annotations
    own = data.box_image == row
    number = int(own.sum())
    return GroundTruth(
        image_ids=np.asarray([data.image_ids[row]], np.int64),
        class_ids=np.asarray(data.category_ids, np.int64),
        class_names=data.classes,
        image=np.zeros(number, np.int64),
        channel=data.box_class[own].astype(np.int64),
        boxes=data.boxes[own],
        crowd=data.crowd[own],
    )


def _found(photos: Photos, line: PseudoBoxLine) -> Detections:
    """Return the pseudo labels of classes that the split has as scorers take them."""
    place = {name: channel for channel, name in enumerate(photos.annotations.classes)}
    known = [number for number, name in enumerate(line.classes) if name in place]
    return Detections(
        image=np.zeros(len(known), np.int64),
        channel=np.asarray([place[line.classes[number]] for number in known], np.int64),
        boxes=np.asarray([line.boxes[number] for number in known], np.float64).reshape(-1, 4),
        scores=np.asarray([line.scores[number] for number in known], np.float64),
    )
