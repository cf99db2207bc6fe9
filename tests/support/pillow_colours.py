"""The colour operations of `LevelledColour` by Pillow, which the project's own are held to and measured against."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

FACTORS = {
    "colour": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}


def recoloured_by_pillow(image: npt.NDArray[np.uint8], name: str, level: int) -> npt.NDArray[Any]:
    """Return an image (blue, green, red) with one operation of level 1 to 9 of 10."""
    picture = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    if name == "auto-contrast":
        picture = ImageOps.autocontrast(picture)
    elif name == "equalise":
        picture = ImageOps.equalize(picture)
    elif name == "solarise":
        picture = ImageOps.solarize(picture, min(level * 256 // 10, 255))
    elif name == "posterise":
        picture = ImageOps.posterize(picture, 4 - level * 4 // 10)
    elif name != "nothing":
        picture = FACTORS[name](picture).enhance(0.1 + 1.8 * level / 10)
    return np.ascontiguousarray(np.asarray(picture)[..., ::-1])
