"""The orientation that cameras note in EXIF data: whether an image is read as it is stored or as it is shown.

A phone stores a picture as its sensor lies and notes in a tag how to turn it. Viewers and most annotation tools turn
it, other programs do not, so boxes may refer to either, and only the data set can tell (``exif_evidence``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TAG = 0x0112  # "Orientation", EXIF 2.3
UPRIGHT = 1
EXCHANGING = frozenset({5, 6, 7, 8})
"""Values of the tag that exchange width and height."""

Size = tuple[int, int]
Exif: TypeAlias = Literal["apply", "ignore", "auto", "sizes"]
"""Whether images are turned as their EXIF orientation says: "apply", "ignore", or "auto": decided for each image folder
by what the stated sizes of the labelled, scored and some unlabelled images fit, and refused where they do not tell.
"sizes" refuses nothing: each image as its stated size fits, and turned where both ways do."""


@dataclass(frozen=True)
class Reading:
    """How the images of a folder are read.

    Attributes:
        apply: turn them as their tag says.
        by_size: but read an image the other way where only that has the width and height its record states.
    """

    apply: bool = False
    by_size: bool = False

    def turns(self, stored: Size, tag: int, stated: tuple[int | None, int | None]) -> bool:
        """Return whether an image is turned.

        Args:
            stored: its width and height in the file.
            tag: its orientation, 1 to 8.
            stated: width and height of its record, None where it states none.
        """
        if tag == UPRIGHT:
            return False
        sizes = {False: stored, True: shown_size(stored, tag)}
        if self.by_size and stated != sizes[self.apply] and stated == sizes[not self.apply]:
            return not self.apply
        return self.apply


AS_STORED = Reading()


def reading_of(exif: Exif) -> Reading:
    """Return how images are read for a value of ``Task.exif``; for "auto" until it has been decided."""
    return {
        "apply": Reading(apply=True),
        "ignore": AS_STORED,
        "sizes": Reading(apply=True, by_size=True),
        "auto": Reading(by_size=True),
    }[exif]


def exif_of_role(exif: Exif | Mapping[str, Exif], role: str) -> Exif:
    """Return the value of ``Task.exif`` for the images of a role; "auto" where it names none."""
    return exif if isinstance(exif, str) else exif.get(role, "auto")


def shown_size(stored: Size, tag: int) -> Size:
    """Return width and height of an image after it has been turned as its tag says."""
    return (stored[1], stored[0]) if tag in EXCHANGING else stored


def tag_of(image: Any) -> int:
    """Return the orientation of an image that PIL has opened, 1 to 8; 1 where it has none, or a broken one.

    No pixel is decoded. TIFF files are turned by every decoder, and their header states the size they are shown in.
    """
    from PIL import Image

    data = image.info.get("exif")
    if not data or image.format == "TIFF":
        return UPRIGHT
    exif = Image.Exif()
    try:
        exif.load(data)
        tag = exif.get(TAG)
    except Exception:  # the reader raises many kinds on broken data
        return UPRIGHT
    return tag if isinstance(tag, int) and UPRIGHT <= tag <= 8 else UPRIGHT


def turned(pixels: npt.NDArray[np.uint8], tag: int) -> npt.NDArray[np.uint8]:
    """Return an image (height, width, channels) turned as its tag says."""
    import numpy as np

    if tag in EXCHANGING:
        pixels = pixels.swapaxes(0, 1)
    down, across = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(tag, (1, 1))
    return np.ascontiguousarray(pixels[::down, ::across])
