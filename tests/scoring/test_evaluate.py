"""Scores: equal to pycocotools on real, random and hard cases; groups; broken input."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scored import DETECTION, box, write

from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.scoring.boxes import Detections, GroundTruth
from cissod_bench.scoring.engines import ENGINES, load_engine
from cissod_bench.scoring.evaluate import Scores, score

COCO_ENGINES = ENGINES["coco"]


def boxes_of(count: int, rng: np.random.Generator, whole: bool) -> NDArray[np.float64]:
    boxes = rng.uniform(0, 20, (count, 4))
    return np.floor(boxes / 4) * 4 if whole else boxes


def random_case(seed: int) -> tuple[GroundTruth, Detections]:
    """Few images and classes, crowds, ties, equal boxes, zero areas; every tenth has > 100 detections per image."""
    rng = np.random.default_rng(seed)
    images, classes, count = rng.integers(1, 6), rng.integers(1, 5), rng.integers(0, 30)
    found = int(rng.integers(0, 60)) if seed % 10 else 700
    whole = bool(seed % 2)
    truth = boxes_of(count, rng, whole)
    boxes, near = boxes_of(found, rng, whole), rng.random(found) < (0.6 if count else 0)
    if count:
        jitter = 0 if whole else rng.normal(0, 0.7, (int(near.sum()), 4))
        boxes[near] = truth[rng.integers(0, count, found)][near] + jitter
        boxes[:, 2:] = np.abs(boxes[:, 2:])
    scores = rng.random(found)
    return (
        GroundTruth(
            np.arange(images),
            np.arange(classes),
            tuple(map(str, range(classes))),
            rng.integers(0, images, count),
            rng.integers(0, classes, count),
            truth,
            rng.random(count) < (0.3 if seed % 3 else 0.9),
        ),
        Detections(
            rng.integers(0, images, found),
            rng.integers(0, classes, found),
            boxes,
            np.round(scores, 1) if seed % 4 < 2 else scores,
        ),
    )


def reference(truth: Path, results: Path, names: Sequence[str] | None = None) -> list[float]:
    """Return pycocotools' own summary numbers of two files, restricted to the classes of these names."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        scorer = COCOeval(coco, coco.loadRes(str(results)), "bbox")
        if names is not None:
            scorer.params.catIds = coco.getCatIds(catNms=list(names))
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return [float(100 * value) for value in scorer.stats]


@pytest.fixture
def cocoapi() -> tuple[Path, Path]:
    root = os.environ.get("CISSOD_TEST_DATA")
    if not root:
        pytest.skip("CISSOD_TEST_DATA is unset: no copy of cocoapi's example")
    folder = Path(root) / "evaluator" / "cocoapi"
    return folder / "instances_val2014_100.json", folder / "instances_val2014_fakebbox100_results.json"


@pytest.mark.parametrize("engine", COCO_ENGINES)
def test_cocoapi_example_gives_its_published_scores(cocoapi: tuple[Path, Path], engine: str) -> None:
    scores = score(*cocoapi, groups={}, engine=engine)
    assert scores.all == pytest.approx(50.4580699, abs=1e-7)
    assert scores.ap50 == pytest.approx(69.6972725, abs=1e-7)
    assert scores.ap75 == pytest.approx(57.2981667, abs=1e-7)
    assert scores.engine.startswith(engine)


def test_groups_equal_pycocotools_restricted_to_their_classes(cocoapi: tuple[Path, Path]) -> None:
    names = [category["name"] for category in json.loads(cocoapi[0].read_text())["categories"]]
    groups = {"maj": names[::2], "min": names[1::2], "one": ["person"]}
    scores = score(*cocoapi, groups=groups)
    assert scores.all == pytest.approx(reference(*cocoapi)[0], abs=1e-9)
    for group, members in groups.items():
        assert scores.groups[group] == pytest.approx(reference(*cocoapi, names=members)[0], abs=1e-9)


def test_all_is_the_mean_of_the_classes_that_have_boxes(cocoapi: tuple[Path, Path]) -> None:
    scores = score(*cocoapi, groups={})
    defined = [value for value in scores.per_class.values() if value is not None]
    assert len(scores.per_class) == 80
    assert 0 < len(defined) < 80
    assert scores.all == pytest.approx(np.mean(defined), abs=1e-9)


def test_hotcoco_equals_pycocotools_on_random_cases() -> None:
    means = []
    for seed in range(200):
        truth, found = random_case(seed)
        fast, slow = (COCO_ENGINES[name](truth, found, 100) for name in ("hotcoco", "pycocotools"))
        assert fast.shape == slow.shape == (10, 101, len(truth.class_ids))
        np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-9, err_msg=f"seed {seed}")
        means.append(slow[slow > -1].mean() if (slow > -1).any() else -1.0)
    assert sum(0.02 < mean < 0.98 for mean in means) > 50, "the cases have to have something to score"


HARD: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "no detection": ([box(10, 3, [0, 0, 10, 10])], []),
    "no annotation": ([], [dict(DETECTION)]),
    "neither": ([], []),
    "class without boxes": ([box(10, 3, [0, 0, 10, 10])], [DETECTION, DETECTION | {"category_id": 7}]),
    "image without boxes": ([box(10, 3, [0, 0, 10, 10])], [DETECTION | {"image_id": 20, "score": 0.95}, DETECTION]),
    "all crowd": ([box(10, 3, [0, 0, 10, 10], iscrowd=1)], [DETECTION, DETECTION]),
    "crowd beside a box, tied scores": (
        [box(10, 3, [0, 0, 10, 10], iscrowd=1), box(10, 3, [0, 0, 8, 10]), box(20, 3, [5, 5, 9, 9])],
        [DETECTION, DETECTION, DETECTION | {"image_id": 20}, DETECTION | {"image_id": 20, "bbox": [5, 5, 9, 9]}],
    ),
    "two detections on one box": ([box(10, 3, [0, 0, 10, 10])], [DETECTION, DETECTION | {"bbox": [0, 0, 10, 9]}]),
    "two equal boxes": ([box(10, 3, [0, 0, 10, 10])] * 2, [DETECTION, DETECTION]),
    "more than 100 detections per image": (
        [box(10, 3, [0, 0, 10, 10]), box(10, 3, [50, 0, 10, 10])],
        [DETECTION | {"bbox": [90, 90, 5, 5], "score": 0.99} for _ in range(99)]
        + [DETECTION, DETECTION | {"bbox": [50, 0, 10, 10], "score": 0.8}],
    ),
    "zero area": (
        [box(10, 3, [3, 3, 0, 0]), box(10, 3, [5, 5, 0, 4]), box(20, 3, [0, 0, 4, 4])],
        [
            DETECTION | {"bbox": [3, 3, 0, 0]},
            DETECTION | {"bbox": [5, 5, 0, 4]},
            DETECTION | {"image_id": 20, "bbox": [0, 0, 4, 4]},
        ],
    ),
    "negative scores": (
        [box(10, 3, [0, 0, 10, 10])],
        [DETECTION | {"score": -0.5}, DETECTION | {"score": -2.0, "image_id": 20}],
    ),
    "an area too large for a float": ([box(10, 3, [0, 0, 1e200, 1e200])], [DETECTION | {"bbox": [0, 0, 1e200, 1e200]}]),
    "larger than the largest area range": ([box(10, 3, [0, 0, 2e5, 2e5])], [DETECTION | {"bbox": [0, 0, 2e5, 2e5]}]),
}


@pytest.mark.parametrize("case", HARD)
def test_engines_and_plain_pycocotools_agree_on_the_hard_case(case: str, tmp_path: Path) -> None:
    annotations, results = HARD[case]
    truth, found = write(tmp_path, annotations), tmp_path / "results.json"
    found.write_text(json.dumps(results))
    fast, slow = (score(truth, found, groups={"g": ["cat"]}, engine=name) for name in ("hotcoco", "pycocotools"))
    assert fast.columns == slow.columns
    assert fast.per_class == slow.per_class
    if results and annotations:  # pycocotools itself cannot load an empty results file, and needs area, id and iscrowd
        full = [{"id": i, "area": a["bbox"][2] * a["bbox"][3], "iscrowd": 0, **a} for i, a in enumerate(annotations, 1)]
        expected = reference(write(tmp_path, full), found, ["cat"])[0]
        assert (-100 if fast.all is None else fast.all) == pytest.approx(expected, abs=1e-9)


def test_a_perfect_detector_scores_100_and_one_that_finds_half_scores_51_of_101_recalls(tmp_path: Path) -> None:
    truth = write(tmp_path, [box(10, 3, [0, 0, 10, 10]), box(20, 3, [0, 0, 10, 10])])
    half = score(truth, [DETECTION], groups={"maj": ["cat"], "min": ["dog"]})
    both = score(truth, [DETECTION, DETECTION | {"image_id": 20}], groups={"maj": ["cat"], "min": ["dog"]})
    assert half.columns == {"all": pytest.approx(100 * 51 / 101), "maj": pytest.approx(100 * 51 / 101), "min": None}
    assert both.columns == {"all": pytest.approx(100), "maj": pytest.approx(100), "min": None}


def test_a_class_without_boxes_is_none_and_a_class_without_detections_is_zero(tmp_path: Path) -> None:
    scores = score(write(tmp_path, [box(10, 3, [0, 0, 10, 10])]), [], groups={"maj": ["cat"], "min": ["dog"]})
    assert scores.per_class == {"cat": 0.0, "dog": None}
    assert scores.columns == {"all": 0.0, "maj": 0.0, "min": None}


def test_an_annotation_whose_id_is_zero_can_be_found(tmp_path: Path) -> None:
    truth = write(tmp_path, [box(10, 3, [0, 0, 10, 10], id=0)])
    assert [score(truth, [DETECTION], groups={}, engine=name).all for name in COCO_ENGINES] == pytest.approx([100, 100])


def test_image_ids_above_two_to_the_53_stay_apart(tmp_path: Path) -> None:
    large = 2**60
    truth = write(tmp_path, [box(large, 3, [0, 0, 10, 10])], images=[large, large + 1])
    for name in COCO_ENGINES:
        assert score(truth, [DETECTION | {"image_id": large + 1}], groups={}, engine=name).all == 0
        assert score(truth, [DETECTION | {"image_id": large}], groups={}, engine=name).all == pytest.approx(100)


def test_tied_scores_are_ordered_by_image_id_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    truth = write(tmp_path, [box(20, 3, [0, 0, 10, 10])])
    wrong_first = [DETECTION, DETECTION | {"image_id": 20}]
    forwards, backwards = (score(truth, order, groups={}).all for order in (wrong_first, wrong_first[::-1]))
    assert forwards == backwards == pytest.approx(50)


def test_the_score_floor_leaves_out_what_is_at_or_below_it(tmp_path: Path) -> None:
    truth = write(tmp_path, [box(10, 3, [0, 0, 10, 10])])
    assert score(truth, [DETECTION], groups={}, score_floor=0.89).all == pytest.approx(100)
    assert score(truth, [DETECTION], groups={}, score_floor=0.9).all == 0


def test_max_dets_keeps_the_best_scored(tmp_path: Path) -> None:
    truth = write(tmp_path, [box(10, 3, [0, 0, 10, 10])])
    found = [DETECTION | {"bbox": [50, 50, 5, 5], "score": 0.95}, DETECTION]
    assert score(truth, found, groups={}, max_dets=1).all == 0
    assert score(truth, found, groups={}, max_dets=2).all == pytest.approx(50)


def test_gzipped_files_give_the_same_scores(cocoapi: tuple[Path, Path], tmp_path: Path) -> None:
    packed = [tmp_path / f"{path.name}.gz" for path in cocoapi]
    for path, target in zip(cocoapi, packed, strict=True):
        target.write_bytes(gzip.compress(path.read_bytes(), 1))
    assert score(*packed, groups={}) == score(*cocoapi, groups={})


def test_without_hotcoco_pycocotools_scores_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.warns(UserWarning, match="hotcoco cannot be imported"):
        scores = score(write(tmp_path, [box(10, 3, [0, 0, 10, 10])]), [DETECTION], groups={})
    assert scores.engine.startswith("pycocotools ")
    assert scores.all == pytest.approx(100)


def test_an_unknown_engine_or_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match=r"no engine 'hotcoca'. Did you mean 'hotcoco'"):
        load_engine("hotcoca")
    with pytest.raises(UsageFault, match=r"no metric 'lviss'. Did you mean 'lvis'"):
        score(tmp_path / "val.json", [], groups={}, metric="lviss")
    with pytest.raises(UsageFault, match="engine 'lvis' does not know the rules of the metric 'coco'"):
        score(tmp_path / "val.json", [], groups={}, engine="lvis")
    with pytest.raises(UsageFault, match="finite"):
        score(tmp_path / "val.json", [], groups={}, score_floor=float("nan"))
    with pytest.raises(UsageFault, match="at least 1"):
        score(tmp_path / "val.json", [], groups={}, max_dets=0)


def test_a_group_that_names_a_class_the_file_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFault, match="no class 'cow', which group 'min' names"):
        score(write(tmp_path, []), [], groups={"maj": ["cat"], "min": ["cow"]})
    with pytest.raises(DataFault, match="cannot be called"):
        score(write(tmp_path, []), [], groups={"all": ["cat"]})


def test_scores_hold_what_a_record_needs() -> None:
    scores = Scores(all=1.0, groups={"maj": 2.0, "min": None}, per_class={}, ap50=None, ap75=None, engine="e 1")
    assert list(scores.columns.items()) == [("all", 1.0), ("maj", 2.0), ("min", None)]
