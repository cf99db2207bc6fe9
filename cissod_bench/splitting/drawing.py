"""Sec. 4.1's moves as pure functions: visit images in a drawn order, cover classes, take a share, split.

Randomness is not a stream of numbers but a rank: every image id is hashed with the split seed and the name of the draw,
and images are visited in the order of their hashes. So the draw depends on the ids alone: not on the order of the file,
not on how many numbers another draw has used, not on NumPy's generators or the machine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cissod_bench.annotations.columns import Ints
from cissod_bench.errors import DataFault, UsageFault, unknown_names
from cissod_bench.files.hashing import splitmix64
from cissod_bench.splitting.options import Cover, DrawOptions, option_name

_VISITED_AT_ONCE = 4096  # images
_LOWER_MINIMUM = (
    "lower --min-instances (min_instances in a task file), or leave classes with fewer boxes out of the minority"
)

ALGORITHM = 1
"""Version of the draw; it changes when the same seed would give other images."""


def visiting_order(ids: Ints, seed: int, draw: str) -> Ints:
    """Return the rows of ``ids`` in a uniformly drawn order that depends on the ids, the seed and the draw's name only.

    Args:
        ids: distinct image ids, (M,).
        seed: the split seed.
        draw: name of the draw; draws of other names are independent.
    """
    key = np.frombuffer(hashlib.sha256(f"{seed}/{draw}".encode()).digest()[:8], "<u8")[0]
    return np.argsort(splitmix64(splitmix64(ids.astype(np.uint64)) ^ key), kind="stable")


def cover_classes(
    order: Ints,
    box_image: npt.NDArray[np.int32],
    box_class: npt.NDArray[np.int16],
    *,
    classes: Sequence[int],
    least: int,
    cover: Cover,
) -> Ints:
    """Return the images, in the order visited, that hold at least ``least`` boxes of every class (Sec. 4.1, D_s).

    Args:
        order: rows of the images to visit, in this order; those without a box of ``classes`` are passed over.
        box_image: row of the image of every box that counts, (N,).
        box_class: row of its class, (N,).
        classes: rows of the classes to cover.
        least: boxes wanted of each class, >= 1.
        cover: "uniform" takes every visited image until all classes are covered: classes keep their natural
            proportions. "useful" passes over an image that holds no class still short of boxes.

    Raises:
        DataFault: the images hold fewer than ``least`` boxes of a class.
    """
    position = np.full(int(max(order.max(initial=-1), box_image.max(initial=-1))) + 1, -1, np.int64)
    position[order] = np.arange(len(order))
    column = np.full(int(max(box_class.max(initial=-1), max(classes, default=-1))) + 1, -1, np.int64)
    column[list(classes)] = np.arange(len(classes))
    wanted = (column[box_class] >= 0) & (position[box_image] >= 0)
    places, columns = position[box_image[wanted]], column[box_class[wanted]]
    if cover == "uniform":
        return order[_first_places(places, columns, len(classes), least)]
    return order[_useful_places(places, columns, len(classes), least)]


def _too_few(column: int, held: int, least: int) -> DataFault:
    return DataFault(f"Class {column} of those to cover has {held} boxes; {least} are wanted.", remedy=_LOWER_MINIMUM)


def _first_places(places: Ints, columns: Ints, num_classes: int, least: int) -> Ints:
    """Return all places with a box up to the one where the last class gets its ``least``-th box."""
    last = -1
    for column in range(num_classes):
        held = np.sort(places[columns == column])
        if len(held) < least:
            raise _too_few(column, len(held), least)
        last = max(last, int(held[least - 1]))
    return np.unique(places[places <= last])


def _useful_places(places: Ints, columns: Ints, num_classes: int, least: int) -> Ints:
    """Return the places that held a class still short of boxes when they were visited."""
    sort = np.argsort(places, kind="stable")
    places, columns = places[sort], columns[sort]
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    ends = np.append(starts, len(places))[1:]
    missing = np.full(num_classes, least, np.int64)
    chosen: list[int] = []
    for first in range(0, len(starts), _VISITED_AT_ONCE):
        begun, ended = (bounds[first : first + _VISITED_AT_ONCE] for bounds in (starts, ends))
        # A class that is covered stays so: here most images fall out, and few are left to be looked at one by one.
        short = missing[columns[begun[0] : ended[-1]]] > 0
        hopeful = np.logical_or.reduceat(short, begun - begun[0])
        for start, end in zip(begun[hopeful].tolist(), ended[hopeful].tolist(), strict=True):
            held = columns[start:end]
            if (missing[held] > 0).any():
                chosen.append(int(places[start]))
                np.subtract.at(missing, held, 1)
        if (missing <= 0).all():
            break
    if (missing > 0).any():
        column = int(np.argmax(missing > 0))
        raise _too_few(column, least - int(missing[column]), least)
    return np.array(chosen, np.int64)


WITHOUT_A_DRAW = (
    "to keep all labels, list images of D_l and of D_u in a file each, all of them from the training file, and call "
    "cissod-bench splits import --task TASK --labelled FILE --unlabelled FILE"
)
"""A remedy: the way to D_l and D_u that drops no box."""


def images_of_percent(percent: float, of: int, *, option: str, part: str) -> int:
    """Return round(percent / 100 * of), the number of images that a percentage asks for.

    Args:
        percent: in (0, 100].
        of: images, >= 1.
        option: name of the percentage in ``DrawOptions``.
        part: what the images become, "D_m".

    Raises:
        UsageFault: that is no image, as where a share of a quarter is written 0.25; ``part`` must not be empty.
    """
    wanted = round(percent / 100 * of)
    if wanted < 1:
        least = _digits(100 / of, math.ceil)
        share = f" for a share of {percent:g}" if percent < 1 and 100 * percent >= least else ""
        meant = 100 * percent if share else least
        raise UsageFault(
            f"{option} is {percent:g}: {percent:g} % of {of:,} images is no image, so that {part} would be empty.",
            remedy=f"percentages go up to 100: {_percent(option, meant)}{share}",
        )
    return wanted


def _percent(option: str, value: float) -> str:
    """Return how a percentage is given on the command line and in a task file."""
    shown = f"{value:.10g}"
    in_file = f" (in a task file {option} = {shown})" if option == "labelled_percent" else ""  # they lack the other
    return f"cissod-bench make-splits {option_name(option)} {shown}{in_file}"


def _digits(value: float, whole: Callable[[float], int]) -> float:
    """Return a value > 0 with four significant digits, rounded by ``math.floor`` or ``math.ceil``."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return whole(value / unit) * unit


def share_of_images(order: Ints, *, percent: float, of: int, left: int = 0) -> Ints:
    """Return the first round(percent / 100 * of) images of an order (Sec. 4.1, D_m).

    Args:
        order: the images to take from, in their order.
        percent: the share, in (0, 100].
        of: the number of images that it is a share of.
        left: images of the order that must be left over for D_u.

    Raises:
        UsageFault: that is no image, or there are fewer images than that.
    """
    if not of:
        raise UsageFault(
            "No image shows a majority box, so that D_m would be empty.",
            remedy="take classes that the images show out of the minority: minority in the task file, or --minority",
        )
    wanted = images_of_percent(percent, of, option="labelled_percent", part="D_m")
    most = max(len(order) - left, 0)
    if wanted > most:
        beside = "D_s and one of D_u" if left else "D_s"
        at_most = f"at most {_percent('labelled_percent', _digits(100 * most / of, math.floor))}; " if most else ""
        raise UsageFault(
            f"{percent:g} % of {of} images is {wanted}, but only {most} are left beside {beside}.",
            remedy=f"{at_most}{WITHOUT_A_DRAW}",
        )
    return order[:wanted]


_NAME_MINORITY = "name classes of the annotation file: minority in the task file, or --minority FILE with one a line"


def minority_rows(names: Sequence[str], classes: Sequence[str]) -> Ints:
    """Return the rows of the minority classes.

    Raises:
        UsageFault: a name is unknown or stands twice, or the names leave no minority or no majority class.
    """
    if not names:
        raise UsageFault("No minority class is named; at least one is needed.", remedy=_NAME_MINORITY)
    if unknown := [name for name in names if name not in classes]:
        raise unknown_names("class", unknown, classes, remedy=_NAME_MINORITY)
    for index, name in enumerate(names):
        if name in names[:index]:
            raise UsageFault(f"The minority class {name!r} is named twice.", remedy="name it once")
    if len(names) == len(classes):
        raise UsageFault(
            f"All {len(classes)} classes are named as minority; at least one majority class is needed.",
            remedy="leave out the classes that D_l holds many boxes of",
        )
    return np.array(sorted(classes.index(name) for name in names))


def cover_rarest_first(
    order: Ints, box_image: npt.NDArray[np.int32], box_class: npt.NDArray[np.int16], *, num_classes: int, least: int
) -> Ints:
    """Return images that hold at least ``least`` boxes of every class, few of them (Sec. 4.1, the LVIS sub-task).

    Classes are taken by the number of images that show them, the rarest first. One that is still short of boxes gets
    the next images that show it, in the order given.

    Args:
        order: rows of all images in the order in which those of a class are taken.
        box_image: row of the image of every box that counts, (N,).
        box_class: row of its class, (N,).
        num_classes: classes, C.
        least: boxes wanted of each class, >= 1.

    Raises:
        DataFault: the images hold fewer than ``least`` boxes of a class.
    """
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    pairs, counts = np.unique(place[box_image] * num_classes + box_class, return_counts=True)
    places, classes = np.divmod(pairs, num_classes)  # ascending by place: each image's classes stand together
    by_class = np.argsort(classes, kind="stable")
    images_of = np.split(by_class, np.cumsum(np.bincount(classes, minlength=num_classes))[:-1])
    missing = np.full(num_classes, least, np.int64)
    chosen = np.zeros(len(order), np.bool_)
    for column in sorted(range(num_classes), key=lambda one: len(images_of[one])):
        for pair in images_of[column]:
            if missing[column] <= 0:
                break
            if not chosen[places[pair]]:
                chosen[places[pair]] = True
                held = slice(*np.searchsorted(places, [places[pair], places[pair] + 1]))
                missing[classes[held]] -= counts[held]
        if missing[column] > 0:
            raise _too_few(column, least - int(missing[column]), least)
    return order[chosen]


def check_enough(
    path: Path, classes: Sequence[str], counts: npt.NDArray[np.int64], rows: Sequence[int] | Ints, least: int
) -> None:
    """Refuse data with too few boxes of a class.

    Args:
        path: the file, for the message.
        classes: names of all classes.
        counts: boxes of each class, (C,).
        rows: rows of the classes that need them.
        least: boxes wanted of each.

    Raises:
        DataFault: the message names every class with fewer.
    """
    short = [f"{classes[row]!r} ({counts[row]})" for row in rows if counts[row] < least]
    if short:
        raise DataFault(
            f"{path}: each class to be covered needs {least} boxes. Fewer have: {', '.join(short)}.",
            remedy=_LOWER_MINIMUM,
        )


def thinned(rows: Ints, ids: Ints, options: DrawOptions) -> tuple[Ints, Ints]:
    """Return the images that enter D_u and those that do not, because ``unlabelled_percent`` is below 100.

    Args:
        rows: the images outside D_l.
        ids: ids of all images.
        options: how the split is drawn.

    Raises:
        UsageFault: no image enters D_u.
    """
    if not len(rows):
        raise UsageFault(
            f"D_l takes all {len(ids):,} images, so that D_u would be empty.",
            remedy="lower --labelled-percent or --min-instances (labelled_percent and min_instances in a task file); "
            + WITHOUT_A_DRAW,
        )
    order = rows[visiting_order(ids[rows], options.split_seed, "D_u")]
    wanted = images_of_percent(options.unlabelled_percent, len(rows), option="unlabelled_percent", part="D_u")
    return np.sort(order[:wanted]), np.sort(order[wanted:])
