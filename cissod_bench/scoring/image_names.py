"""Predictions that call an image by its file name where COCO's format has its id, as some detectors write them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cissod_bench.annotations.ids import row_finder
from cissod_bench.annotations.lenient import id_number


def _stem_as_number(name: str) -> str:
    stem = PurePosixPath(name).stem
    return str(int(stem)) if stem.isascii() and stem.isdigit() else stem


_READINGS: Mapping[str, Callable[[str], str]] = {
    "file names": str,
    "file names without folders": lambda name: PurePosixPath(name).name,
    "file names without folders and ending": lambda name: PurePosixPath(name).stem,
    "the numbers in their file names": _stem_as_number,
}
"""What a file name may be written as."""


def ids_of_names(
    ids: NDArray[np.int64], image_ids: NDArray[np.int64], file_names: Sequence[str] | None, where: str
) -> NDArray[np.int64]:
    """Return the image ids that predictions mean: those they state, or those of the files they name.

    Names count only where an id is unknown, one way of writing them explains every id, and no two images share a name.
    A warning says that they count.

    Args:
        ids: of the predictions, int64 (D,); text as `lenient.id_number` has it.
        image_ids: of the validation file, ascending, int64 (I,).
        file_names: of these images, "" where the file states none; None where it states none at all.
        where: the predictions' file, for the warning.
    """
    if file_names is None or (row_finder(image_ids)(ids) >= 0).all():
        return ids
    plain = [name.replace("\\", "/") for name in file_names]
    for words, reading in _READINGS.items():
        numbers = [id_number(reading(name)) for name in plain]
        named = np.array([0 if number is None else number for number in numbers], np.int64)
        if None in numbers or len(np.unique(named)) < len(named):
            continue
        rows = row_finder(named)(ids)
        if (rows < 0).any():
            continue
        meant: NDArray[np.int64] = image_ids[rows]
        first = f"{reading(plain[rows[0]])!r} is the image with id {meant[0]}, {plain[rows[0]]}"
        warnings.warn(f"{where}: images are named by {words}, not by their ids: {first}.", stacklevel=2)
        return meant
    return ids
