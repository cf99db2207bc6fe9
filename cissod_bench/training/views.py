"""The views of an image: labelled, weak, strong (Soft Teacher, Sec. 4.1) and the one it is scored in."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from cissod_bench.training.settings import Settings

View: TypeAlias = Literal["sup", "weak", "strong", "test"]

META_KEYS = (
    "img_id", "img_index", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction",
    "homography_matrix",
)  # fmt: skip

COLOUR = (
    "ColorTransform", "AutoContrast", "Equalize", "Sharpness", "Posterize", "Solarize", "Color", "Contrast",
    "Brightness",
)  # fmt: skip
GEOMETRY = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def _one_of(names: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "RandAugment", "aug_space": [[{"type": name}] for name in names], "aug_num": 1}


def _resize_and_flip(settings: Settings) -> list[dict[str, Any]]:
    scales = [(settings.long_side, side) for side in settings.short_side]
    return [
        {"type": "RandomResize", "scale": scales, "keep_ratio": True},
        {"type": "RandomFlip", "prob": 0.5},
    ]


def _strong(settings: Settings) -> list[dict[str, Any]]:
    erasing = {"type": "RandomErasing", "n_patches": (1, 5), "ratio": (0, 0.2)}
    if settings.strong_views == "light":
        return [_one_of(COLOUR), erasing | {"ratio": (0, 0.1)}]
    return [{"type": "RandomOrder", "transforms": [_one_of(COLOUR), _one_of(GEOMETRY)]}, erasing]


def pipeline(view: View, settings: Settings) -> list[dict[str, Any]]:
    """Return mmdet's transforms of a view, from the decoded image to the packed sample.

    Weak and strong views of one image are drawn independently; each records the homography from the original image.
    """
    pack = {"type": "PackDetInputs", "meta_keys": META_KEYS}
    if view == "test":
        size = (settings.long_side, settings.test_short_side)
        return [{"type": "Resize", "scale": size, "keep_ratio": True}, pack]
    # keep_empty=False returns an image that lost its last box; mmdet's default would return None.
    keep = {"type": "FilterAnnotations", "min_gt_bbox_wh": (1e-2, 1e-2), "keep_empty": False}
    middle = {"sup": [_one_of(COLOUR), keep], "weak": [], "strong": _strong(settings)}[view]
    return [*_resize_and_flip(settings), *middle, pack]
