"""Federated scores: hotcoco equal to lvis-api on real, random and hard cases; the rules by hand; no traces left."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scored import DETECTION, box, write_federated

from cissod_bench.errors import EnvironmentFault, UsageFault
from cissod_bench.scoring import references as reference_engines
from cissod_bench.scoring.boxes import Detections, Federated, GroundTruth
from cissod_bench.scoring.engines import ENGINES, load_engine
from cissod_bench.scoring.evaluate import score
from cissod_bench.scoring.hotcoco import best_of_each_image
from cissod_bench.scoring.references import surroundings

LVIS_ENGINES = ENGINES["lvis"]
AP_OF = {"r": "APr", "c": "APc", "f": "APf"}  # what lvis-api calls the groups


def some(count: int, share: float, rng: np.random.Generator) -> list[int]:
    return np.flatnonzero(rng.random(count) < share).tolist()


def random_boxes(count: int, whole: bool, rng: np.random.Generator) -> NDArray[np.float64]:
    boxes = rng.uniform(0, 20, (count, 4))
    return np.floor(boxes / 4) * 4 if whole else boxes


def random_case(seed: int) -> tuple[GroundTruth, Detections, int]:
    """Few images and classes with random lists, tied scores, zero and huge areas; images beyond their limit."""
    rng = np.random.default_rng(seed)
    images, classes, count = rng.integers(1, 6), rng.integers(1, 7), int(rng.integers(0, 30))
    found = int(rng.integers(0, 80)) if seed % 20 else 1500
    whole = bool(seed % 2)
    truth = random_boxes(count, whole, rng)
    truth_image, truth_channel = rng.integers(0, images, count), rng.integers(0, classes, count)
    boxes, image, channel = (
        random_boxes(found, whole, rng), rng.integers(0, images, found), rng.integers(0, classes, found)
    )  # fmt: skip
    if count:  # most detections lie near a box of their image, many on it
        source = rng.integers(0, count, found)
        near = rng.random(found) < 0.8
        boxes[near] = truth[source[near]] + (0 if whole else rng.normal(0, 0.7, (int(near.sum()), 4)))
        boxes[:, 2:] = np.abs(boxes[:, 2:])
        image[near] = truth_image[source[near]]
        right = near & (rng.random(found) < 0.8)
        channel[right] = truth_channel[source[right]]
    area = truth[:, 2] * truth[:, 3] * rng.choice([1, 0.5, 0, 1e12], count, p=[0.5, 0.4, 0.05, 0.05])
    rules = Federated(
        [some(classes, 0.5, rng) for _ in range(images)],
        [some(classes, 0.2, rng) for _ in range(images)],
        area,
        rng.random(count) < (0.2 if seed % 3 == 0 else 0),
    )
    scores = rng.random(found)
    return (
        GroundTruth(
            np.arange(images), np.arange(classes), tuple(map(str, range(classes))), truth_image, truth_channel, truth,
            rng.random(count) < 0.1, rules,
        ),
        Detections(image, channel, boxes, np.round(scores, 1) if seed % 4 < 2 else scores),
        int(rng.choice([1, 3, 10, 100, 300, 1000])),
    )  # fmt: skip


def made_detections(content: Mapping[str, Any], an_image: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return detections of a validation file: its boxes moved, some of a class that is listed or not; tied scores."""
    class_ids = [category["id"] for category in content["categories"]]
    found = []
    for image in content["images"]:
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        for number in rng.integers(0, len(own), an_image).tolist() if own else []:
            moved = np.array(own[number]["bbox"]) + rng.normal(0, 2, 4)
            listed = [*image["neg_category_ids"], *image["not_exhaustive_category_ids"]] or class_ids
            draws = [own[number]["category_id"]] * 6 + [int(rng.choice(listed)), int(rng.choice(class_ids))]
            bbox = [*moved[:2].tolist(), *np.maximum(moved[2:], 0).tolist()]
            found.append(
                {"image_id": image["id"], "category_id": draws[int(rng.integers(8))], "bbox": bbox,
                 "score": round(float(rng.random()), 2)}
            )  # fmt: skip
    rng.shuffle(found)  # type: ignore[arg-type]
    return found


def plain_lvis_api(truth: Path, found: Path, max_dets: int) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Return lvis-api's own numbers of two files in points, and its precision array, used as its authors show."""
    with surroundings():
        from lvis import LVIS, LVISEval, LVISResults

        gt = LVIS(str(truth))
        scorer = LVISEval(gt, LVISResults(gt, str(found), max_dets=max_dets), "bbox")
        # Without small, medium and large, which play no part: a quarter of the time.
        scorer.params.area_rng, scorer.params.area_rng_lbl = scorer.params.area_rng[:1], ["all"]
        scorer.run()
    return {key: 100 * value for key, value in scorer.get_results().items()}, scorer.eval["precision"][:, :, :, 0]


def mean(precision: NDArray[np.float64]) -> float:
    return 100 * float(precision[precision > -1].mean()) if (precision > -1).any() else -100.0


def plain(value: float | None) -> float:
    return -100.0 if value is None else value


@pytest.fixture(scope="module")
def lvis_val(test_data: Path) -> tuple[Path, dict[str, Any]]:
    path = test_data / "lvis" / "lvis_val_100.json"
    return path, json.loads(path.read_text())


def test_both_engines_equal_plain_lvis_api_on_real_images(
    lvis_val: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    path, content = lvis_val
    results, max_dets = tmp_path / "found.json", 100
    results.write_text(json.dumps(made_detections(content, 150, np.random.default_rng(0))))
    names = [category["name"] for category in content["categories"]]
    groups = {g: [c["name"] for c in content["categories"] if c["frequency"] == g] for g in "fcr"}
    expected, precision = plain_lvis_api(path, results, max_dets)
    assert 5 < expected["AP"] < 95
    for engine in LVIS_ENGINES:
        ours = score(path, results, groups=groups, engine=engine, max_dets=max_dets, metric="lvis")
        assert ours.all == pytest.approx(expected["AP"], abs=1e-9)
        assert (ours.ap50, ours.ap75) == pytest.approx((expected["AP50"], expected["AP75"]), abs=1e-9)
        for group, value in ours.groups.items():
            assert value == pytest.approx(expected[AP_OF[group]], abs=1e-9)
        for channel, name in enumerate(names):
            assert plain(ours.per_class[name]) == pytest.approx(mean(precision[:, :, channel]), abs=1e-9), name
        assert ours.engine.startswith(f"{engine} ")


def test_any_other_partition_is_the_same_accumulation(lvis_val: tuple[Path, dict[str, Any]]) -> None:
    path, content = lvis_val
    found = made_detections(content, 30, np.random.default_rng(1))
    names = [category["name"] for category in content["categories"]]
    groups = {"f": names[::3], "c": names[1::3], "r": names[2::3]}
    ours, reference = (score(path, found, groups=groups, engine=name, metric="lvis") for name in LVIS_ENGINES)
    assert ours.columns == pytest.approx(reference.columns, abs=1e-9)
    for group, members in groups.items():
        defined = [value for name in members if (value := ours.per_class[name]) is not None]
        assert ours.groups[group] == pytest.approx(np.mean(defined), abs=1e-9)


def test_hotcoco_equals_lvis_api_on_random_federated_cases() -> None:
    means, dropped = [], 0
    for seed in range(400):
        truth, found, max_dets = random_case(seed)
        fast, slow = (LVIS_ENGINES[name](truth, found, max_dets) for name in ("hotcoco", "lvis"))
        assert fast.shape == slow.shape == (10, 101, len(truth.class_ids))
        np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-9, err_msg=f"seed {seed}")
        means.append(mean(slow))
        dropped += len(best_of_each_image(found, max_dets).scores) < len(found.scores)
    assert sum(2 < value < 98 for value in means) > 100, "the cases have to have something to score"
    assert dropped > 100, "many have to be beyond the limit of an image"


def test_files_with_odd_ids_in_odd_order_score_as_in_plain_lvis_api(tmp_path: Path) -> None:
    for seed in range(1, 13):
        truth, found, max_dets = random_case(seed)
        rules, rng = truth.federated, np.random.default_rng(seed)
        if rules is None or not len(found.scores):
            continue
        image_ids = np.sort(rng.choice(500, len(truth.image_ids), replace=False))
        class_ids = np.sort(rng.choice(90, len(truth.class_ids), replace=False))
        images = [
            {
                "id": int(i),
                "neg_category_ids": class_ids[n].tolist(),
                "not_exhaustive_category_ids": class_ids[e].tolist(),
            }
            for i, n, e in zip(image_ids, rules.absent, rules.incomplete, strict=True)
        ]
        classes = [
            {"id": number, "name": str(number), "frequency": "rcf"[k % 3]}
            for k, number in enumerate(class_ids.tolist())
        ]
        annotations = [
            box(i, c, b, id=k, area=a, ignore=int(g), iscrowd=0)
            for k, (i, c, b, a, g) in enumerate(
                zip(image_ids[truth.image].tolist(), class_ids[truth.channel].tolist(), truth.boxes.tolist(),
                    rules.area.tolist(), rules.ignored, strict=True), 1)
        ]  # fmt: skip
        results = [
            box(i, c, b, score=s)
            for i, c, b, s in zip(image_ids[found.image].tolist(), class_ids[found.channel].tolist(),
                                  found.boxes.tolist(), found.scores.tolist(), strict=True)
        ]  # fmt: skip
        rng.shuffle(images)  # type: ignore[arg-type]
        rng.shuffle(classes)  # type: ignore[arg-type]
        files = tmp_path / "val.json", tmp_path / "found.json"
        content = ({"images": images, "categories": classes, "annotations": annotations}, results)
        for file, value in zip(files, content, strict=True):
            file.write_text(json.dumps(value))
        expected, _ = plain_lvis_api(*files, max_dets)
        groups = {g: [c["name"] for c in classes if c["frequency"] == g] for g in "fcr"}
        for engine in LVIS_ENGINES:
            ours = score(*files, groups=groups, engine=engine, max_dets=max_dets, metric="lvis")
            assert plain(ours.all) == pytest.approx(expected["AP"], abs=1e-9), (seed, engine)
            for group, value in ours.groups.items():
                assert plain(value) == pytest.approx(expected[AP_OF[group]], abs=1e-9), (seed, engine, group)


CAT = box(10, 3, [0, 0, 10, 10])
SECOND = DETECTION | {"bbox": [50, 50, 9, 9], "score": 0.95}  # found first, and no cat is there
UNLISTED: dict[str, Any] = {"neg_category_ids": []}
HARD: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any], float | None]] = {
    # annotations, detections, fields of image 10, AP of all classes
    "no detection": ([CAT], [], {}, 0.0),
    "no annotation": ([], [DETECTION], {}, None),
    "neither": ([], [], {}, None),
    "a false detection of an annotated class counts": ([CAT], [SECOND, DETECTION], {}, 50.0),
    "though it is listed nowhere, for it has a box": ([CAT], [SECOND, DETECTION], UNLISTED, 50.0),
    "not where the class is incomplete": ([CAT], [SECOND, DETECTION], {"not_exhaustive_category_ids": [3]}, 100.0),
    "one in an image known to lack the class counts": (
        [box(20, 3, [0, 0, 10, 10])], [SECOND, DETECTION | {"image_id": 20}], {}, 50.0,
    ),
    "not in an image that is not annotated for it": (
        [box(20, 3, [0, 0, 10, 10])], [SECOND, DETECTION | {"image_id": 20}], UNLISTED, 100.0,
    ),
    "an incomplete class without a box is not annotated": (
        [box(20, 3, [0, 0, 10, 10])], [SECOND, DETECTION | {"image_id": 20}],
        {"neg_category_ids": [], "not_exhaustive_category_ids": [3]}, 100.0,
    ),
    "a box without area does not exist": ([CAT, box(10, 7, [0, 0, 0, 9])], [DETECTION], {}, 100.0),
    "nor does it make its image annotated": (
        [box(10, 3, [9, 9, 0, 9]), box(20, 3, [0, 0, 10, 10])], [SECOND, DETECTION | {"image_id": 20}], UNLISTED, 100.0,
    ),
    "nor one whose area is infinite": (
        [box(10, 3, [0, 0, 1e200, 1e200]), box(20, 3, [0, 0, 10, 10])], [SECOND, DETECTION | {"image_id": 20}],
        UNLISTED, 100.0,
    ),
    "nor one whose mask has none": ([CAT, box(10, 7, [0, 0, 9, 9], area=0)], [DETECTION], {}, 100.0),
    "a detection without area does not exist": ([CAT], [SECOND | {"bbox": [5, 5, 0, 3]}, DETECTION], {}, 100.0),
    "a crowd is a box like others": ([CAT | {"iscrowd": 1}], [DETECTION], {}, 100.0),
    "an ignored box need not be found": ([CAT, box(10, 3, [50, 50, 9, 9], ignore=1)], [DETECTION], {}, 100.0),
    "and makes nothing wrong": ([CAT, box(10, 3, [50, 50, 9, 9], ignore=1)], [SECOND, DETECTION], {}, 100.0),
    "larger than the largest area range": (
        [CAT, box(10, 3, [0, 0, 2e5, 2e5])], [DETECTION, DETECTION | {"bbox": [0, 0, 2e5, 2e5]}], {}, 100.0,
    ),
    "a detection whose area is infinite does not exist": (
        [CAT], [SECOND | {"bbox": [0, 0, 1e200, 1e200]}, DETECTION], {}, 100.0,
    ),
    "two detections on one box": ([CAT], [DETECTION, DETECTION | {"score": 0.8}], {}, 100.0),
}  # fmt: skip


@pytest.mark.parametrize("engine", LVIS_ENGINES)
@pytest.mark.parametrize("case", HARD)
def test_the_rule_holds(case: str, engine: str, tmp_path: Path) -> None:
    annotations, found, fields, expected = HARD[case]
    path = write_federated(tmp_path, annotations, **fields)
    assert score(path, found, groups={}, engine=engine, metric="lvis").all == pytest.approx(expected, abs=1e-9)


def test_a_class_without_boxes_is_none_and_a_class_without_detections_is_zero(tmp_path: Path) -> None:
    path = write_federated(tmp_path, [CAT])
    for engine in LVIS_ENGINES:
        scores = score(path, [], groups={"f": ["cat"], "c": [], "r": ["dog"]}, engine=engine, metric="lvis")
        assert scores.per_class == {"cat": 0.0, "dog": None}
        assert scores.columns == {"all": 0.0, "f": 0.0, "c": None, "r": None}


@pytest.mark.parametrize("engine", LVIS_ENGINES)
def test_the_limit_of_detections_is_an_images_over_all_classes(engine: str, tmp_path: Path) -> None:
    path = write_federated(tmp_path, [CAT])
    found = [DETECTION | {"category_id": 7, "score": 0.95}, DETECTION]
    assert score(path, found, groups={}, engine=engine, max_dets=1, metric="lvis").all == 0
    assert score(path, found, groups={}, engine=engine, max_dets=2, metric="lvis").all == pytest.approx(100)
    assert score(path, found, groups={}, max_dets=1).all == pytest.approx(100), "COCO's is of a class"


@pytest.mark.parametrize("engine", LVIS_ENGINES)
def test_of_tied_detections_at_the_limit_the_earlier_one_is_kept(engine: str, tmp_path: Path) -> None:
    path = write_federated(tmp_path, [CAT])
    for found, expected in (([DETECTION, SECOND | {"score": 0.9}], 100), ([SECOND | {"score": 0.9}, DETECTION], 0)):
        assert score(path, found, groups={}, engine=engine, max_dets=1, metric="lvis").all == pytest.approx(expected)


@pytest.mark.parametrize("most", [1, 2, 5, 50])
def test_the_best_of_each_image_are_those_of_a_stable_sort(most: int) -> None:
    for seed in range(1, 40):
        _, found, _ = random_case(seed)
        kept: set[int] = set()
        for image in set(found.image.tolist()):
            rows: Sequence[int] = np.flatnonzero(found.image == image).tolist()
            kept.update(sorted(rows, key=lambda row: found.scores[row], reverse=True)[:most])
        best = best_of_each_image(found, most)
        np.testing.assert_array_equal(best.boxes, found.boxes[sorted(kept)])


def test_the_score_floor_comes_before_the_limit(tmp_path: Path) -> None:
    path, weak = write_federated(tmp_path, [CAT]), DETECTION | {"score": 0.04}
    assert score(path, [weak], groups={}, max_dets=300, score_floor=1e-4, metric="lvis").all == pytest.approx(100)
    assert score(path, [weak], groups={}, score_floor=0.05, metric="lvis").all == 0


def test_without_hotcoco_lvis_api_scores_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.warns(UserWarning, match="hotcoco cannot be imported .*; lvis scores instead"):
        scores = score(write_federated(tmp_path, [CAT]), [DETECTION], groups={}, metric="lvis")
    assert scores.engine == "lvis 0.5.3"
    assert scores.all == pytest.approx(100)


def test_an_engine_that_does_not_know_the_rules_is_refused() -> None:
    with pytest.raises(UsageFault, match="'pycocotools' does not know the rules of the metric 'lvis'") as caught:
        load_engine("pycocotools", "lvis")
    assert caught.value.remedy == "take --engine hotcoco or lvis"


def test_a_missing_lvis_api_is_an_environment_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lvis", None)
    with pytest.raises(EnvironmentFault, match="lvis cannot be imported"):
        load_engine("lvis", "lvis")
    assert "float" not in vars(np)


def test_the_adapter_puts_its_surroundings_back_even_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    root, own = logging.getLogger(), logging.getLogger("lvis")
    before = root.handlers[:], root.level, own.level
    truth, found, _ = random_case(1)
    broken = replace(found, image=found.image + 1000)  # lvis-api asserts that it knows the images
    with pytest.raises(AssertionError, match="do not correspond"):
        LVIS_ENGINES["lvis"](truth, broken, 100)
    assert "float" not in vars(np)
    assert (root.handlers[:], root.level, own.level) == before
    monkeypatch.setattr(np, "float", str, raising=False)
    with reference_engines.surroundings():
        assert vars(np)["float"] is float
    assert vars(np)["float"] is str, "an alias that somebody else has set stays theirs"


def test_lvis_api_leaves_no_trace_in_a_fresh_process(tmp_path: Path) -> None:
    path = write_federated(tmp_path, [CAT])
    code = f"""
import logging, warnings
from pathlib import Path
import numpy
from cissod_bench.scoring.evaluate import score
warnings.simplefilter("always")
print(score(Path({str(path)!r}), [{DETECTION!r}], groups={{}}, engine="lvis", metric="lvis").all)
root, own = logging.getLogger(), logging.getLogger("lvis")
print(root.handlers, root.level, own.level, "float" in vars(numpy))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    ap, traces = done.stdout.splitlines()
    assert float(ap) == pytest.approx(100)
    assert traces == "[] 30 0 False"
