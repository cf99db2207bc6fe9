"""Scores on a part of the images: as if the file held no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scored import DETECTION, box, write, write_federated

from cissod_bench.errors import DataFault
from cissod_bench.scoring.evaluate import score_several

BOXES = [box(10, 3, (0, 0, 10, 10)), box(20, 3, (0, 0, 10, 10)), box(20, 7, (5, 5, 10, 10))]
FOUND = [DETECTION, DETECTION | {"bbox": [50.0, 50.0, 5.0, 5.0], "score": 0.95}]


@pytest.mark.parametrize("metric", ["coco", "lvis"])
def test_other_images_and_their_boxes_do_not_count(tmp_path: Path, metric: str) -> None:
    whole, small = tmp_path / "whole", tmp_path / "small"
    write_any: Any = write if metric == "coco" else write_federated
    for folder in (whole, small):
        folder.mkdir()
    path = write_any(whole, BOXES)
    reduced = json.loads(write_any(small, BOXES[:1]).read_text())
    reduced["images"] = reduced["images"][:1]
    (small / "val.json").write_text(json.dumps(reduced))
    of_part = score_several(path, [FOUND], groups={"g": ["cat"]}, metric=metric, images=[10])
    of_file = score_several(small / "val.json", [FOUND], groups={"g": ["cat"]}, metric=metric)
    of_whole = score_several(path, [FOUND], groups={"g": ["cat"]}, metric=metric)
    assert of_part == of_file
    assert of_part != of_whole
    with pytest.raises(DataFault, match="20"):
        score_several(path, [[DETECTION | {"image_id": 20}]], groups={}, metric=metric, images=[10])
