"""The views of an image: labelled, weak, strong (as in Soft Teacher's released code) and the one it is scored in."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from cissod_bench.contract.settings import Settings

View: TypeAlias = Literal["sup", "weak", "strong", "test"]

META_KEYS = (
    "img_id", "img_index", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction",
    "homography_matrix",
)  # fmt: skip

COLOUR = (
    "ColorTransform", "AutoContrast", "Equalize", "Sharpness", "Posterize", "Solarize", "Color", "Contrast",
    "Brightness",
)  # fmt: skip
BORDER = 125  # grey of what lies outside the image and of erased patches in Soft Teacher's views; mmdet's is 128
GEOMETRY = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
# Soft Teacher's four: (what is done, its limit); shear is one operation, across and then down.
OWN_GEOMETRY = (
    (("translate-x", 0.1),),
    (("translate-y", 0.1),),
    (("rotate", 30.0),),
    (("shear-x", 30.0), ("shear-y", 30.0)),
)


def _mmdets(names: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "RandAugment", "aug_space": [[{"type": name}] for name in names], "aug_num": 1}


def _colour(settings: Settings) -> dict[str, Any]:
    return {"type": "LevelledColour"} if settings.strong_views == "soft-teacher" else _mmdets(COLOUR)


def _geometry(settings: Settings) -> dict[str, Any]:
    if settings.strong_views == "mmdet":
        return _mmdets(GEOMETRY)
    chosen = [[{"type": "UniformWarp", "kind": kind, "limit": most} for kind, most in one] for one in OWN_GEOMETRY]
    return {"type": "RandomChoice", "transforms": chosen}


def _resize_and_flip(settings: Settings) -> list[dict[str, Any]]:
    scales = [(settings.long_side, side) for side in settings.short_side]
    return [
        {"type": "RandomResize", "scale": scales, "keep_ratio": True},
        {"type": "RandomFlip", "prob": 0.5},
    ]


def _strong(settings: Settings) -> list[dict[str, Any]]:
    erasing: dict[str, Any] = {"type": "RandomErasing", "n_patches": (1, 5), "ratio": (0, 0.2)}
    if settings.strong_views == "light":
        return [_colour(settings), erasing | {"ratio": (0, 0.1)}]
    if settings.strong_views == "soft-teacher":
        erasing["img_border_value"] = BORDER
    return [{"type": "RandomOrder", "transforms": [_colour(settings), _geometry(settings)]}, erasing]


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
    middle = {"sup": [_colour(settings), keep], "weak": [], "strong": _strong(settings)}[view]
    return [*_resize_and_flip(settings), *middle, pack]
