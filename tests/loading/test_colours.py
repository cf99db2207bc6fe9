"""Colour operations by table and by OpenCV: mmdet's and Pillow's within one grey level, for every image and amount."""

from __future__ import annotations

from typing import Any

import mmcv
import numpy as np
import numpy.typing as npt
import pytest
from pillow_colours import recoloured_by_pillow

from cissod_bench.loading import colours
from cissod_bench.loading.transforms import COLOURS, recoloured

Pixels = npt.NDArray[np.uint8]
FACTORS = [round(0.1 * tenths, 1) for tenths in range(1, 20)]


def images() -> dict[str, Pixels]:
    """Images at the ends of what there is; random ones of odd sizes."""
    numbers = np.random.default_rng(0)
    made = {
        f"random {h} x {w}": numbers.integers(0, 256, (h, w, 3), np.uint8) for h, w in [(47, 61), (3, 5), (120, 128)]
    }
    made["dim"] = numbers.integers(90, 140, (40, 50, 3), np.uint8)
    made["grey"] = np.repeat(numbers.integers(0, 256, (30, 40, 1), np.uint8), 3, axis=2)
    for value in (0, 1, 127, 255):
        made[f"constant {value}"] = np.full((9, 13, 3), value, np.uint8)
    for channel in range(3):
        made[f"channel {channel} saturated"] = numbers.integers(0, 256, (33, 29, 3), np.uint8)
        made[f"channel {channel} saturated"][..., channel] = 255
    made["two values"] = numbers.choice(np.array([3, 250], np.uint8), (20, 30, 3))
    made["tiny"] = numbers.integers(0, 256, (1, 1, 3), np.uint8)
    made["a row"] = numbers.integers(0, 256, (1, 9, 3), np.uint8)
    return made


IMAGES = images()
MMDETS: dict[str, tuple[Any, Any, list[Any]]] = {
    "solarise": (colours.solarised, mmcv.solarize, [round(0.1 * tenths, 1) for tenths in range(0, 2561, 16)]),
    "posterise": (colours.posterised, mmcv.posterize, [0, 1, 2, 3, 4, 8]),
    "brightness": (colours.brightened, mmcv.adjust_brightness, FACTORS),
    "contrast": (colours.contrasted, mmcv.adjust_contrast, FACTORS),
    "colour": (lambda image, f: colours.coloured(image, f, truncate=False), mmcv.adjust_color, FACTORS),
    "sharpness": (lambda image, f: colours.sharpened(image, f, keep_frame=False), mmcv.adjust_sharpness, FACTORS),
    "auto-contrast": (lambda image, _: colours.auto_contrasted(image), lambda image, _: mmcv.auto_contrast(image), [0]),
    "equalise": (lambda image, _: colours.equalised(image), lambda image, _: mmcv.imequalize(image), [0]),
}


def distance(one: Pixels, other: npt.NDArray[Any]) -> int:
    assert one.shape == other.shape
    assert one.dtype == np.uint8
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("operation", MMDETS)
def test_an_operation_is_mmdets_within_one_grey_level_for_every_amount(operation: str) -> None:
    quick, slow, amounts = MMDETS[operation]
    for name, image in IMAGES.items():
        image.setflags(write=False)
        for amount in amounts:
            assert distance(quick(image, amount), slow(image, amount).astype(np.uint8)) <= 1, (name, amount)


@pytest.mark.parametrize("operation", COLOURS)
def test_an_operation_is_pillows_within_one_grey_level_for_every_level(operation: str) -> None:
    for name, image in IMAGES.items():
        image.setflags(write=False)
        for level in range(1, 10):
            assert distance(recoloured(image, operation, level), recoloured_by_pillow(image, operation, level)) <= 1, (
                name,
                level,
            )


@pytest.mark.parametrize("operation", ["solarise", "posterise", "auto-contrast", "equalise"])
def test_what_moves_whole_numbers_only_is_mmdets_to_the_bit(operation: str) -> None:
    quick, slow, amounts = MMDETS[operation]
    for image in IMAGES.values():
        for amount in amounts:
            assert distance(quick(image, amount), slow(image, amount).astype(np.uint8)) == 0, amount
