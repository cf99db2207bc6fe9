"""Image files: names that cannot leave their folder, and pixels as every detector expects them."""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from cissod_bench.controls import has_control
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.orientation import AS_STORED, Reading, shown_size, tag_of, turned

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_PIXELS = 250_000_000
"""Largest image that is decoded, unless ``CISSOD_MAX_PIXELS`` says another number; telephones make photos of 200
megapixels. A few kilobytes can claim more and would fill the memory: a pixel takes three bytes."""
MAX_PIXELS_VARIABLE = "CISSOD_MAX_PIXELS"

_LONE_MARKERS = {bytes([code]) for code in (0x00, 0x01, *range(0xD0, 0xD9))}  # without a length behind them
_LAST = 12  # bytes of a PNG's last chunk
_REMEDY = "fetch the image again"

_MOST_FOLDERS = 10_000
_SAFE_FOLDERS: set[tuple[str, str, Path | None]] = set()
"""Folders below an image folder that no link leads out of, as this process has seen: one image of each is looked at
closely, which takes 50 microseconds."""


def broken_name_rule(name: str) -> str | None:
    """Return the rule that a relative file name breaks, or None for a name that stays below its folder.

    Refused are empty and absolute names, ".." as a part, NUL and other control characters (``controls.CONTROLS``; every
    other character is a file name's right, the odd spaces of macOS too); on every system also what would be absolute on
    another one, because annotation files travel.
    """
    if not name or has_control(name):
        return "must be a printable name without control characters"
    if name[0] in "/\\" or ".." in name or ":" in name:  # the quick look at one of millions; the parts decide
        windows = PureWindowsPath(name)
        if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
            return "must be relative, without '..'"
    return None


def check_file_name(name: str, where: str) -> None:
    """Refuse a file name that could point outside its folder.

    Args:
        name: ``file_name`` of an image record.
        where: file and JSON path, for the message.

    Raises:
        DataFault: the name breaks a rule of ``broken_name_rule``.
    """
    rule = broken_name_rule(name)
    if rule is not None:
        remedy = "write the name as a path below the image folder, and rename the file if it holds such characters"
        raise DataFault(f"{where} {rule}. Got {name[:200]!r}.", remedy=remedy)


def safe_path(root: Path, name: str, within: Path | None = None) -> Path:
    """Return the path of an image below ``root``; ``root`` itself may be a link.

    Args:
        root: the image folder.
        name: of the image below it.
        within: the data root, in which links may lead out of the image folder; None keeps them in it.

    Raises:
        DataFault: the name is unsafe (see ``check_file_name``) or a link on the way leaves ``root`` and ``within``.
    """
    check_file_name(name, f"{root}: file_name")
    path = root / name
    folder = (os.fspath(root), os.path.dirname(name), within)
    if folder in _SAFE_FOLDERS and not os.path.islink(path):
        return path
    real = os.path.realpath(path)
    if not _lies_in(real, root) and (within is None or not _lies_in(real, within)):
        inside = f"{root}" if within is None else f"{root} and the data root {within}"
        raise DataFault(f"{path} is a link that leaves {inside}.", remedy="copy the image into the folder")
    if len(_SAFE_FOLDERS) < _MOST_FOLDERS and not os.path.islink(path):
        _SAFE_FOLDERS.add(folder)
    return path


def _lies_in(real: str, folder: Path) -> bool:
    real_folder = os.path.realpath(folder)
    return os.path.commonpath([real_folder, real]) == real_folder


class Header(NamedTuple):
    """What the first bytes of an image file say: width and height as stored, pixels, and orientation, 1 to 8."""

    width: int
    height: int
    tag: int


def read_image(
    path: Path, width: int | None = None, height: int | None = None, reading: Reading = AS_STORED
) -> npt.NDArray[np.uint8]:
    """Return an image as blue, green, red, uint8 (height, width, 3).

    Grey, palette, CMYK, 16-bit and transparent images are converted.

    Args:
        path: the image file.
        width: what its annotation record states, pixels; None takes any.
        height: likewise.
        reading: whether it is turned as its EXIF orientation says; as it stands, it is not: COCO's boxes refer to the
            stored pixels.

    Raises:
        DataFault: the file is missing, empty, cut off, no image, of another size than stated, or claims more than
            ``max_pixels()``; the message names the file.
    """
    import cv2
    import numpy as np

    try:
        with _opened(path) as stream:
            data = stream.read()
    except OSError as error:
        raise DataFault(f"{path}: the image cannot be read ({error.strerror}).", remedy=_REMEDY) from None
    header = read_header(path, io.BytesIO(data))
    _check_size(path, header, width, height, reading)
    _check_end(path, data)
    pixels = None
    with suppress(cv2.error):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise DataFault(f"{path}: the image cannot be decoded; it is broken.", remedy=_REMEDY)
    read = cast("npt.NDArray[np.uint8]", pixels)
    return turned(read, header.tag) if reading.turns(header[:2], header.tag, (width, height)) else read


def _opened(path: Path) -> IO[bytes]:
    """Return an image file, opened; a pipe or a device, which would be waited for without end, is an OSError."""
    return open(path, "rb", opener=_without_waiting)


def _without_waiting(path: str, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # which changes nothing in the reading of files
    mode = os.fstat(handle).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder is told by open() itself
        os.close(handle)
        raise OSError(errno.EINVAL, "a pipe or device")
    return handle


def check_header(
    path: Path, width: int | None = None, height: int | None = None, reading: Reading = AS_STORED
) -> Header:
    """Return what an image's header says, or refuse what it alone shows to be broken; no pixel is read.

    Args:
        path: the image file.
        width: what its annotation record states, pixels; None takes any.
        height: likewise.
        reading: as for ``read_image``.

    Raises:
        DataFault: the file is missing, empty, no image, of another size than stated, or claims more than
            ``max_pixels()``. A file that is cut off or broken further behind passes.
    """
    try:
        with _opened(path) as stream:
            header = read_header(path, stream)
    except OSError as error:
        raise DataFault(f"{path}: the image cannot be read ({error.strerror}).", remedy=_REMEDY) from None
    _check_size(path, header, width, height, reading)
    return header


def max_pixels() -> int:
    """Return the most pixels an image may have to be decoded.

    Raises:
        UsageFault: ``CISSOD_MAX_PIXELS`` is set and is no whole number above 0.
    """
    stated = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not stated:
        return MAX_PIXELS
    if not (stated.isascii() and stated.isdigit() and int(stated)):
        raise UsageFault(
            f"{MAX_PIXELS_VARIABLE} is the most pixels an image may have, a whole number above 0. Got {stated!r}.",
            remedy=f"export {MAX_PIXELS_VARIABLE}={MAX_PIXELS}",
        )
    return int(stated)


def check_end(path: Path) -> None:
    """Refuse a PNG or JPEG that is cut off; of a whole one, as nearly all are, the first and last bytes alone are read.

    Raises:
        DataFault: it is cut off, or cannot be read.
    """
    try:
        with _opened(path) as stream:
            first = stream.read(2)
            stream.seek(max(os.fstat(stream.fileno()).st_size - _LAST, 0))
            last = stream.read(_LAST)
        if not (first == b"\xff\xd8" and last.endswith(b"\xff\xd9")) and not (first == b"\x89P" and b"IEND" in last):
            _check_end(path, path.read_bytes())
    except OSError as error:
        raise DataFault(f"{path}: the image cannot be read ({error.strerror}).", remedy=_REMEDY) from None


def _check_end(path: Path, data: bytes) -> None:
    """Refuse a file that is cut off: both decoders fill the missing part with grey and say nothing."""
    if (data.startswith(b"\x89PNG") and b"IEND" not in data) or (data.startswith(b"\xff\xd8") and not _jpeg_ends(data)):
        raise DataFault(f"{path}: the image is cut off at byte {len(data)}.", remedy=_REMEDY)


def _jpeg_ends(data: bytes) -> bool:
    """Return whether a JPEG has its end marker; cameras and phones write more behind it.

    Segments are stepped over (ITU-T T.81, annex B): the preview within one has an end marker of its own.
    """
    at = 2
    while not data.endswith(b"\xff\xd9") and (at := data.find(b"\xff", at)) >= 0:
        marker = data[at + 1 : at + 2]
        if marker == b"\xd9":
            return True
        if marker == b"\xff":  # filling
            at += 1
        elif marker in _LONE_MARKERS:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.endswith(b"\xff\xd9")


def read_header(path: Path, stream: IO[bytes]) -> Header:
    """Return what the header of an open image file says.

    Raises:
        DataFault: it is empty, none of an image, or claims more than ``max_pixels()``.
    """
    from PIL import Image

    if not stream.read(1):
        raise DataFault(f"{path}: the image is empty (0 bytes).", remedy=_REMEDY)
    stream.seek(0)
    try:
        # Its own limit is lower; only its readers of headers are used, which need no memory.
        Image.MAX_IMAGE_PIXELS = None
        with Image.open(stream) as image:
            header = Header(image.width, image.height, tag_of(image))
    except Exception as error:  # the many readers raise many kinds on broken headers
        raise DataFault(f"{path}: this is no image ({type(error).__name__}).", remedy=_REMEDY) from None
    pixels = header.width * header.height
    if pixels > (most := max_pixels()):
        raise DataFault(
            f"{path}: the image claims {header.width} x {header.height} pixels, more than {most:,}; it is not decoded.",
            remedy=f"if it is truly so large, export {MAX_PIXELS_VARIABLE}={pixels}; a pixel takes 3 bytes",
        )
    return header


def _check_size(path: Path, header: Header, width: int | None, height: int | None, reading: Reading) -> None:
    """Refuse an image of another size than its record states."""
    stored: tuple[int, int] = header[:2]
    shown = shown_size(stored, header.tag)
    turns = reading.turns(stored, header.tag, (width, height))
    size, other = (shown, stored) if turns else (stored, shown)
    stated = (width or size[0], height or size[1])
    if stated == size:
        return
    says = f"its annotation says {width} x {height}"
    if stated == other:
        how = "turned as its EXIF orientation says" if turns else "stored; its EXIF orientation says to turn it"
        raise DataFault(
            f"{path}: the image is {size[0]} x {size[1]} pixels as it is {how}; {says}.",
            remedy='set exif = "auto" in the task file, or give the images one convention',
        )
    raise DataFault(
        f"{path}: the image is {size[0]} x {size[1]} pixels; {says}.",
        remedy="give each data set its own images, or state in its annotation file the sizes that its images have",
    )
