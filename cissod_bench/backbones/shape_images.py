"""Drawn images of one shape each: what the backbone of the toy tasks is pretrained on.

They are to the toy tasks what ImageNet is to photographs: one object per image, its class, no box. All ten kinds of
shape are drawn equally often, majority and minority alike, as ImageNet has the animals of ``voc-animals``. Every image
has a key of its own that no image of a task has, so none of the tasks' images is among them.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cissod_bench.splitting.toy_images import OUTLINES, Dice, background, paint, place, with_noise

SHAPES = tuple(OUTLINES)
"""The classes, in the order of their numbers."""

Image: TypeAlias = npt.NDArray[np.uint8]


def draw_shape(seed: int, number: int, side: int) -> tuple[Image, int]:
    """Return an image, uint8 BGR (side, side, 3), and the number of the shape that it shows.

    Size, aspect, rotation, colours and background are drawn as in the toy tasks; half of the images are mirrored, as
    training does with the tasks' own.

    Args:
        seed: other seeds give other images.
        number: of the image; the same number gives the same image.
        side: of the image, pixels.
    """
    dice = Dice(f"one shape/{seed}/{number}")
    pixels = background(dice, side, side)
    label = dice.pick([1.0] * len(SHAPES))
    paint(pixels, place(SHAPES[label], dice, side, side), dice)
    image = with_noise(pixels, dice)
    return (np.ascontiguousarray(image[:, ::-1]) if dice.number() < 0.5 else image), label


def draw_shapes(seed: int, numbers: range, side: int) -> tuple[Image, npt.NDArray[np.int64]]:
    """Return several images, uint8 BGR (B, side, side, 3), and their shapes' numbers, int64 (B,); see `draw_shape`."""
    drawn = [draw_shape(seed, number, side) for number in numbers]
    return np.stack([image for image, _ in drawn]), np.array([label for _, label in drawn], dtype=np.int64)
