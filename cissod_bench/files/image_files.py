"""Which files below a folder are images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cissod_bench.errors import DataFault

ENDINGS = (".bmp", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of the names of image files, in small letters."""

UNREAD = (".arw", ".avif", ".cr2", ".cr3", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".orf", ".rw2")
"""Endings of pictures in formats that are not read, in small letters: of telephones and cameras above all."""


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
    return sorted(name for name in _names(folder) if is_image_name(name.rpartition("/")[2]))


def unread_below(folder: Path) -> list[str]:
    """Return the names of pictures below a folder whose format is not read (``UNREAD``), sorted; [] where it is not."""
    names = ((name, name.rpartition("/")[2]) for name in _names(folder))
    return sorted(name for name, last in names if last.lower().endswith(UNREAD) and not last.startswith("."))


def _names(folder: Path) -> Iterator[str]:
    """Yield the names of all files in a folder and the folders in it."""
    seen: set[str] = set()
    for place, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        below = Path(place).relative_to(folder)
        yield from ((below / name).as_posix() for name in names)
