"""Which files below a folder are images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cissod_bench.errors import DataFault

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of the names of image files, in small letters."""


def is_image_name(name: str) -> bool:
    """Return whether a file's name is that of an image; hidden files, as macOS adds them to archives, are none."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def images_below(folder: Path) -> list[str]:
    """Return the names of all images in a folder and the folders in it, with "/" between folders, sorted.

    Links are followed; a folder that was seen already is not entered again.

    Raises:
        DataFault: the folder is missing or cannot be read.
    """
    try:
        with os.scandir(folder):
            pass
    except (FileNotFoundError, NotADirectoryError):
        raise DataFault(f"The folder {folder} is missing.", remedy="correct the name of the image folder") from None
    except OSError as error:
        raise DataFault(f"{folder} cannot be read: {error.strerror}.", remedy=f"chmod +rx {folder}") from None
    return sorted(_names(folder))


def _names(folder: Path) -> Iterator[str]:
    seen: set[str] = set()
    for place, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        below = Path(place).relative_to(folder)
        yield from ((below / name).as_posix() for name in names if is_image_name(name))
