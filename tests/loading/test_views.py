"""Augmentations: Soft Teacher's own in preset full, mmdet's by name, and those of the small presets as they were."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cissod_bench.contract.presets import MINI, SMOKE, preset
from cissod_bench.contract.settings import FULL, Settings
from cissod_bench.loading.loaders import seeded
from cissod_bench.loading.pipelines import build_transforms
from cissod_bench.loading.transforms import COLOURS, LevelledColour, UniformWarp, recoloured, warp_matrix
from cissod_bench.loading.views import COLOUR, pipeline

MMDETS = replace(FULL, strong_views="mmdet")
GEOMETRY = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def spaces(settings: Settings) -> list[list[list[dict[str, Any]]]]:
    """The operations among which the strong view draws, each a list of transforms."""
    (order,) = (t for t in pipeline("strong", settings) if t["type"] == "RandomOrder")
    return [t.get("aug_space") or t.get("transforms") or [] for t in order["transforms"]]


def image(height: int = 60, width: int = 100) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def sample(height: int = 60, width: int = 100, boxes: Any = ()) -> dict[str, Any]:
    from mmdet.structures.bbox import HorizontalBoxes

    truth = np.array(boxes, np.float32).reshape(-1, 4)
    return {
        "img": image(height, width), "img_id": 1, "img_index": 0, "img_path": "1", "img_shape": (height, width),
        "ori_shape": (height, width), "gt_bboxes": HorizontalBoxes(truth),
        "gt_bboxes_labels": np.zeros(len(truth), np.int64), "gt_ignore_flags": np.zeros(len(truth), bool),
    }  # fmt: skip


def test_full_draws_one_of_soft_teachers_four_geometric_operations_and_shear_is_one() -> None:
    full = preset("full", task_iterations=1)
    views = pipeline("strong", full)
    assert [t["type"] for t in views] == ["RandomResize", "RandomFlip", "RandomOrder", "RandomErasing", "PackDetInputs"]
    assert views[0]["scale"] == [(1333, 400), (1333, 1200)]
    assert [[(one["kind"], one["limit"]) for one in steps] for steps in spaces(full)[1]] == [
        [("translate-x", 0.1)], [("translate-y", 0.1)], [("rotate", 30.0)], [("shear-x", 30.0), ("shear-y", 30.0)],
    ]  # fmt: skip
    assert views[2]["transforms"][0] == {"type": "LevelledColour"}
    assert (views[3]["n_patches"], views[3]["ratio"], views[3]["img_border_value"]) == ((1, 5), (0, 0.2), 125)


def test_translations_of_full_are_uniform_where_mmdets_are_by_nothing_or_a_tenth() -> None:
    def shares(settings: Settings) -> npt.NDArray[np.float64]:
        (place,) = (
            number for number, steps in enumerate(spaces(settings)[1])
            if steps[0].get("kind") == "translate-x" or steps[0]["type"] == "TranslateX"
        )  # fmt: skip
        transform = build_transforms(spaces(settings)[1][place])
        with seeded(7):
            found = [transform(sample())["homography_matrix"][0, 2] / 100 for _ in range(400)]
        return np.array(found, np.float64)

    assert set(np.round(np.abs(shares(MMDETS)), 6)) == {0.0, 0.1}
    drawn = shares(FULL)
    assert len(np.unique(drawn)) == 400
    assert np.abs(drawn).max() <= 0.1
    counts, _ = np.histogram(drawn, bins=8, range=(-0.1, 0.1))
    assert counts.min() > 25  # 50 a bin


@pytest.mark.parametrize(
    ("kind", "amount", "point", "expected"),
    [
        ("translate-x", 0.1, (5, 7), (15, 7)),
        ("translate-y", -0.1, (5, 7), (5, 1)),
        ("rotate", 90.0, (99, 29.5), (49.5, 79)),  # clockwise about the centre
        ("shear-x", 30.0, (5, 10), (5 + 10 * np.tanh(np.pi / 6), 10)),
        ("shear-y", -30.0, (10, 5), (10, 5 - 10 * np.tanh(np.pi / 6))),
    ],
)
def test_a_point_goes_where_the_operation_sends_it(kind: Any, amount: float, point: Any, expected: Any) -> None:
    found = warp_matrix(kind, amount, 100, 60) @ np.array([*point, 1])
    np.testing.assert_allclose(found, [*expected, 1], atol=1e-4)


@pytest.mark.parametrize("kind", ["translate-x", "translate-y", "rotate", "shear-x", "shear-y"])
def test_pixels_boxes_and_homography_move_together(kind: Any) -> None:
    own = sample(boxes=[[40, 20, 60, 40]])
    own["img"][:], own["img"][26:35, 46:55] = 0, 255
    before = np.diag([2.0, 2.0, 1.0]).astype(np.float32)  # the image was enlarged before
    own["homography_matrix"] = before
    with seeded(3):
        found = UniformWarp(kind, 0.1 if "translate" in kind else 30.0).transform(own)
    matrix = found["homography_matrix"] @ np.linalg.inv(before)
    assert not np.allclose(matrix, np.eye(3))
    rows, columns = np.nonzero(found["img"].min(axis=2) > 200)
    centre = matrix @ np.array([50, 30, 1])
    np.testing.assert_allclose([columns.mean(), rows.mean()], centre[:2], atol=0.5)
    corners = matrix @ np.array([[40, 60, 40, 60], [20, 20, 40, 40], [1, 1, 1, 1]])
    expected = [*corners[:2].min(axis=1), *corners[:2].max(axis=1)]
    np.testing.assert_allclose(found["gt_bboxes"].tensor[0], expected, atol=1e-3)
    assert found["img"].shape == (60, 100, 3)


def test_what_comes_from_outside_the_image_is_grey() -> None:
    own = sample()
    own["img"][:] = 0
    with seeded(1):
        found = UniformWarp("rotate", 30.0).transform(own)
    assert {125} == set(np.unique(found["img"][[0, 0, -1, -1], [0, -1, 0, -1]]))


def test_colours_are_nine_with_levels_of_one_to_nine_tenths(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Counter[str] = Counter()
    levels = set()

    def noted(pixels: Any, name: str, level: int) -> Any:
        drawn[name] += 1
        levels.add(level)
        return pixels

    monkeypatch.setattr("cissod_bench.loading.transforms.recoloured", noted)
    with seeded(5):
        for _ in range(900):
            LevelledColour().transform(sample(4, 4))
    assert set(drawn) == set(COLOURS)
    assert len(COLOURS) == 9
    assert min(drawn.values()) > 60
    assert levels == set(range(1, 10))


def test_colour_operations_do_what_they_are_called() -> None:
    pixels = image()
    assert np.array_equal(recoloured(pixels, "nothing", 9), pixels)
    assert recoloured(pixels, "brightness", 1).mean() < 0.4 * pixels.mean()
    assert recoloured(pixels, "contrast", 1).std() < 0.5 * pixels.std()
    grey = recoloured(pixels, "colour", 1).astype(int)
    assert np.ptp(grey, axis=2).mean() < 0.5 * np.ptp(pixels.astype(int), axis=2).mean()
    bright = np.full((2, 2, 3), 200, np.uint8)
    assert np.unique(recoloured(bright, "solarise", 5)).tolist() == [55]  # from 128 on
    assert np.unique(recoloured(bright, "solarise", 9)).tolist() == [200]  # from 230 on
    assert [len(np.unique(recoloured(pixels, "posterise", level))) for level in (1, 3, 5, 9)] == [16, 8, 4, 2]
    blue = np.zeros((2, 2, 3), np.uint8)
    blue[..., 0] = 200
    assert recoloured(blue, "brightness", 9)[0, 0].tolist() == [255, 0, 0]
    for name in COLOURS:
        assert recoloured(pixels, name, 4).dtype == np.uint8
        assert recoloured(pixels, name, 4).shape == pixels.shape


@pytest.mark.parametrize("settings", [MINI, SMOKE], ids=["mini", "smoke"])
def test_views_of_the_small_presets_are_as_they_were(settings: Settings) -> None:
    """Kept results were made with them."""
    colours = {"type": "RandAugment", "aug_space": [[{"type": name}] for name in COLOUR], "aug_num": 1}
    erasing = {"type": "RandomErasing", "n_patches": (1, 5), "ratio": (0, 0.1)}
    resized = [
        {"type": "RandomResize", "scale": [(128, 88), (128, 120)], "keep_ratio": True},
        {"type": "RandomFlip", "prob": 0.5},
    ]
    assert pipeline("strong", settings)[:-1] == [*resized, colours, erasing]
    assert pipeline("sup", settings)[:-2] == [*resized, colours]
    assert pipeline("weak", settings)[:-1] == resized
    assert settings.teacher_proposals == "test"


def test_mmdets_views_are_kept_by_name() -> None:
    assert spaces(MMDETS) == [[[{"type": name}] for name in COLOUR], [[{"type": name}] for name in GEOMETRY]]
    erasing = pipeline("strong", MMDETS)[3]
    assert erasing == {"type": "RandomErasing", "n_patches": (1, 5), "ratio": (0, 0.2)}
    assert pipeline("sup", MMDETS)[2]["type"] == "RandAugment"


@pytest.mark.parametrize("views", ["soft-teacher", "mmdet", "light"])
def test_every_strong_view_is_built_and_repeats_with_its_key(views: Any) -> None:
    small = replace(FULL, strong_views=views, long_side=133, short_side=(40, 120))
    made = build_transforms(pipeline("strong", small))
    for key in range(12):
        packed = []
        for _ in range(2):
            with seeded(key):
                packed.append(made(sample()))
        one, other = packed
        assert np.array_equal(one["inputs"], other["inputs"])
        assert np.array_equal(one["data_samples"].homography_matrix, other["data_samples"].homography_matrix)
        assert one["inputs"].shape[0] == 3
