"""The two COCO splits on the real boxes of train2017 (section 12.1 of the specification; done-point 3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cissod_bench.annotations.reading import Annotations, read_annotations
from cissod_bench.catalogue import load_task
from cissod_bench.split_folders.ensure import draw_options
from cissod_bench.splitting.data_files import write_data_files
from cissod_bench.splitting.manifest import split_sha256
from cissod_bench.splitting.scenarios import draw_by_minority
from cissod_bench.splitting.split import Split

REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "coco_reference.json").read_text(encoding="utf-8"))
SEEDS = range(5)
TASKS = ("coco-split1", "coco-split2")
NUM_D_M = {"coco-split1": 9846, "coco-split2": 10_094}
NUM_D_S = {"coco-split1": (180, 600), "coco-split2": (175, 230)}
MINORITY_BOXES = {"coco-split1": (1000, 2800), "coco-split2": (540, 740)}


@pytest.fixture(scope="module")
def coco(test_data: Path) -> Iterator[Annotations]:
    with read_annotations(test_data / "coco/annotations/instances_train2017.json.gz") as data:
        yield data


def drawn(name: str, seed: int, coco: Annotations, **options: Any) -> Split:
    task = load_task(name)
    return draw_by_minority(task, {"train": coco}, draw_options(task, split_seed=seed, **options))


def boxes_a_class(split: Split, *, part: str | None = None) -> dict[str, int]:
    data = split.shares[0].annotations
    shown = split.shares[0].shown & data.instances()
    if part is not None:
        shown &= np.isin(data.box_image, split.shares[0].labelled[part])
    return dict(
        zip(data.classes, np.bincount(data.box_class[shown], minlength=len(data.classes)).tolist(), strict=True)
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", TASKS)
def test_counts_are_those_of_the_released_splits(name: str, seed: int, coco: Annotations) -> None:
    split = drawn(name, seed, coco)
    images = {part: len(rows) for part, rows in split.shares[0].labelled.items()}
    assert images["D_m"] == NUM_D_M[name]
    low, high = NUM_D_S[name]
    assert low <= images["D_s"] <= high
    assert sum(images.values()) + len(split.shares[0].unlabelled) == len(coco.image_ids)

    in_d_s, in_d_m = boxes_a_class(split, part="D_s"), boxes_a_class(split, part="D_m")
    low, high = MINORITY_BOXES[name]
    assert low <= sum(in_d_s[kind] for kind in split.groups["min"]) <= high
    assert [kind for kind in split.groups["min"] if in_d_s[kind] < 10] == []
    assert [kind for kind in split.groups["min"] if in_d_m[kind]] == []
    assert [kind for kind in split.groups["maj"] if not in_d_m[kind]] == []


def z_scores(name: str, split: Split) -> dict[str, float]:
    """How far the majority boxes in D_l are from the released counts, in standard deviations of two such draws.

    D_m draws m of the M images with a majority box without replacement. If image i holds x_i boxes of a class, their
    sum over D_m has variance m (1 - m/M) S^2, S^2 the variance of x over the M images: boxes come in clusters, so a
    binomial in boxes would be too narrow. Both counts are such draws, hence z = (n - released) / sqrt(2 variance).
    """
    data, counts = split.shares[0].annotations, boxes_a_class(split)
    minority = [data.classes.index(kind) for kind in split.groups["min"]]
    holds_majority = data.per_image(~np.isin(data.box_class, minority)) > 0
    drawn_images, images = len(split.shares[0].labelled["D_m"]), int(holds_majority.sum())
    scores = {}
    for kind, released in REFERENCE[name]["majority_boxes"].items():
        held = data.per_image(data.box_class == data.classes.index(kind))[holds_majority]
        variance = drawn_images * (1 - drawn_images / images) * held.var(ddof=1)
        scores[kind] = (counts[kind] - released) / np.sqrt(2 * variance)
    return scores


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", TASKS)
def test_majority_boxes_agree_with_the_released_split(name: str, seed: int, coco: Annotations) -> None:
    split = drawn(name, seed, coco)
    scores = z_scores(name, split)
    assert set(scores) == set(split.groups["maj"])
    assert {kind: score for kind, score in scores.items() if abs(score) > 4} == {}
    assert 0.5 < np.mean(np.square(list(scores.values()))) < 1.7  # the formula fits: such scores have mean square 1


def test_a_share_of_eleven_percent_would_be_noticed(coco: Annotations) -> None:
    scores = z_scores("coco-split2", drawn("coco-split2", 0, coco, labelled_percent=11))
    assert max(scores.values()) > 4


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", TASKS)
def test_the_same_seed_gives_the_same_bytes(name: str, seed: int, coco: Annotations, tmp_path: Path) -> None:
    files = write_data_files(tmp_path, drawn(name, seed, coco))
    assert split_sha256(files) == REFERENCE[name]["split_sha256"][seed]


def test_other_seeds_give_other_images(coco: Annotations) -> None:
    parts = [set(drawn("coco-split1", seed, coco).shares[0].labelled["D_m"].tolist()) for seed in (0, 1)]
    shared = len(parts[0] & parts[1]) / len(parts[0])
    assert 0.07 < shared < 0.13  # two independent tenths share a tenth


def test_split2_has_the_forty_names_and_split1_the_twenty(coco: Annotations) -> None:
    for name, number in (("coco-split1", 20), ("coco-split2", 40)):
        minority = load_task(name).minority
        assert len(set(minority)) == number
        assert set(minority) <= set(coco.classes)
        assert set(REFERENCE[name]["majority_boxes"]) == set(coco.classes) - set(minority)
