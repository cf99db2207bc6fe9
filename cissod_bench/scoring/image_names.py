"""Predictions that call an image by its file name where COCO's format has its id, as some detectors write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cissod_bench.annotations.ids import row_finder
from cissod_bench.annotations.lenient import id_number


def _stem_as_number(name: str) -> str:
    stem = PurePosixPath(name).stem
    return str(int(stem)) if stem.isascii() and stem.isdigit() else stem


_READINGS: tuple[Callable[[str], str], ...] = (
    str,
    lambda name: PurePosixPath(name).name,
    lambda name: PurePosixPath(name).stem,
    _stem_as_number,
)
"""What a file name may be written as: whole, without folders, without its ending, digits alone as a number."""


def ids_of_names(
    ids: NDArray[np.int64], image_ids: NDArray[np.int64], file_names: Sequence[str] | None
) -> NDArray[np.int64]:
    """Return the image ids that predictions mean: those they state, or those of the files they name.

    Names count only where an id is unknown, one way of writing them explains every id, and no two images share a name.

    Args:
        ids: of the predictions, int64 (D,); text as `lenient.id_number` has it.
        image_ids: of the validation file, ascending, int64 (I,).
        file_names: of these images, "" where the file states none; None where it states none at all.
    """
    if file_names is None or (row_finder(image_ids)(ids) >= 0).all():
        return ids
    plain = [name.replace("\\", "/") for name in file_names]
    for reading in _READINGS:
        numbers = [id_number(reading(name)) for name in plain]
        named = np.array([0 if number is None else number for number in numbers], np.int64)
        if None in numbers or len(np.unique(named)) < len(named):
            continue
        rows = row_finder(named)(ids)
        if (rows < 0).any():
            continue
        meant: NDArray[np.int64] = image_ids[rows]
        return meant
    return ids
