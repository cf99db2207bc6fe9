from __future__ import annotations

import gzip
import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cissod_bench.annotations.reading import Annotations, read_annotations
from cissod_bench.errors import DataFault
from cissod_bench.files.json_objects import JsonFile


def coco(boxes: list[list[float]], **fields: Any) -> dict[str, Any]:
    """One image of 100 x 80 pixels with these boxes."""
    annotations = [
        {"id": number, "image_id": 5, "category_id": 2, "bbox": box, "area": box[2] * box[3], "iscrowd": 0, **fields}
        for number, box in enumerate(boxes, 1)
    ]
    return {
        "images": [{"id": 5, "width": 100, "height": 80, "file_name": "a.jpg"}],
        "annotations": annotations,
        "categories": [{"id": 2, "name": "cat"}, {"id": 1, "name": "dog"}],
    }


def written(path: Path, content: Any, **style: Any) -> Path:
    path.write_text(json.dumps(content, **style), encoding="utf-8")
    return path


def record(data: Annotations, row: int) -> Any:
    offset, length = int(data.box_spans.offsets[row]), int(data.box_spans.lengths[row])
    return json.loads(data.file.read(offset, offset + length))


def check_against_json(path: Path) -> None:
    """Compare every column and every record's bytes with what the json module reads."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    wanted = json.loads(text)
    ids = sorted(category["id"] for category in wanted["categories"])
    with read_annotations(path) as data:
        assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert data.image_ids.tolist() == [image["id"] for image in wanted["images"]]
        assert data.file_names == [image["file_name"] for image in wanted["images"]]
        assert data.widths.tolist() == [image["width"] for image in wanted["images"]]
        assert data.heights.tolist() == [image["height"] for image in wanted["images"]]
        assert data.box_ids.tolist() == [box["id"] for box in wanted["annotations"]]
        assert data.image_ids[data.box_image].tolist() == [box["image_id"] for box in wanted["annotations"]]
        assert [ids[row] for row in data.box_class] == [box["category_id"] for box in wanted["annotations"]]
        assert data.boxes.tolist() == [box["bbox"] for box in wanted["annotations"]]
        assert data.crowd.tolist() == [bool(box.get("iscrowd", 0)) for box in wanted["annotations"]]
        assert [record(data, row) for row in range(len(data.box_ids))] == wanted["annotations"]
        starts, lengths = data.image_spans.offsets.tolist(), data.image_spans.lengths.tolist()
        images = [json.loads(data.file.read(at, at + size)) for at, size in zip(starts, lengths, strict=True)]
        assert images == wanted["images"]


def test_columns_and_bytes_are_those_of_the_file(tiny_coco: Path) -> None:
    check_against_json(tiny_coco / "tiny/annotations/train.json")


@pytest.mark.parametrize(
    "name",
    ["coco_mini/instances_train.json", "lvis/lvis_val_100.json", "coco/annotations/instances_val2017.json.gz"],
)
def test_real_files_are_read_as_the_json_module_reads_them(test_data: Path, name: str) -> None:
    check_against_json(test_data / name)


def test_real_coco_keeps_all_its_boxes(test_data: Path) -> None:
    with read_annotations(test_data / "coco/annotations/instances_train2017.json.gz") as data:
        assert len(data.image_ids) == 117_266
        assert len(data.box_ids) == 849_942
        assert data.policy.counts() == {"degenerate": 0, "outside": 0, "clipped": 0, "crowd": 0}


TEXTS = st.text(alphabet='{}[],:"\\ab \n\té', max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
STYLES = [
    {},
    {"separators": (",", ":")},
    {"indent": 2},
    {"separators": (" ,\n ", " : ")},
    {"ensure_ascii": False},
]


@settings(max_examples=200, deadline=None)
@given(
    records=st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=12),
    behind=VALUES,
    size=st.integers(1, 200),
    style=st.sampled_from(STYLES),
)
def test_pieces_of_any_size_give_every_record_once(
    tmp_path_factory: pytest.TempPathFactory, records: Any, behind: Any, size: int, style: Any
) -> None:
    path = tmp_path_factory.mktemp("pieces") / "a.json"
    path.write_text(json.dumps({"before": behind, "rows": records, "behind": behind}, **style), encoding="utf-8")
    decoder = msgspec.json.Decoder(list[msgspec.Raw])
    found = []
    with JsonFile(path) as file:
        for member in file.members():
            if member.key != "rows":
                assert json.loads(member.value()) == behind
                continue
            for piece in member.pieces(decoder, size):
                assert piece.first == len(found)
                found += [json.loads(bytes(one)) for one in piece.records]
    assert found == records


@pytest.mark.parametrize("style", STYLES)
def test_spans_are_right_for_every_way_to_write_json(tmp_path: Path, style: Any) -> None:
    content = coco([[1, 2, 30, 40], [5, 6, 7, 8]], segmentation=[{"a": [{"b": 1}, {"c": "},{"}]}, {"d": 2}])
    check_against_json(written(tmp_path / "a.json", content, **style))


def test_gzip_is_told_from_the_content_not_the_name(tmp_path: Path) -> None:
    plain = written(tmp_path / "a.json.gz", coco([[1, 2, 3, 4]]))
    packed = tmp_path / "b.json"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with read_annotations(plain) as one, read_annotations(packed) as other:
        assert one.boxes.tolist() == other.boxes.tolist() == [[1, 2, 3, 4]]


def test_classes_stand_in_the_order_of_their_ids(tmp_path: Path) -> None:
    with read_annotations(written(tmp_path / "a.json", coco([[1, 2, 3, 4]]))) as data:
        assert data.category_ids == (1, 2)
        assert data.classes == ("dog", "cat")
        assert data.box_class.tolist() == [1]


def test_unknown_keys_and_any_order_of_keys_are_read(tmp_path: Path) -> None:
    content = {"more": {"x": [1, "]"]}, "n": 1.5, **dict(reversed(coco([[1, 2, 3, 4]]).items())), "last": None}
    with read_annotations(written(tmp_path / "a.json", content)) as data:
        assert data.boxes.tolist() == [[1, 2, 3, 4]]


def test_a_file_without_boxes_is_sound(tmp_path: Path) -> None:
    with read_annotations(written(tmp_path / "a.json", coco([]))) as data:
        assert data.boxes.shape == (0, 4)
        assert data.per_image(data.instances()).tolist() == [0]


@pytest.mark.parametrize(
    ("box", "kept", "rule"),
    [
        ([10, 10, 20, 20], [10, 10, 20, 20], None),
        ([10, 10, 0, 20], None, "degenerate"),
        ([10, 10, 20, 0], None, "degenerate"),
        ([10, 10, -5, 20], None, "degenerate"),
        ([200, 10, 20, 20], None, "outside"),
        ([-30, 10, 20, 20], None, "outside"),
        ([10, 80, 20, 20], None, "outside"),
        ([-9.99999, 10, 10, 20], None, "outside"),
        ([90, 10, 10.5, 20], [90, 10, 10.5, 20], None),
        ([-0.5, 10, 20, 20], [-0.5, 10, 20, 20], None),
        ([90, 10, 10.51, 20], [90, 10, 10, 20], "clipped"),
        ([-3, -4, 10, 10], [0, 0, 7, 6], "clipped"),
        ([-5, -5, 300, 300], [0, 0, 100, 80], "clipped"),
    ],
)
def test_odd_boxes_meet_the_stated_policy(tmp_path: Path, box: Any, kept: Any, rule: str | None) -> None:
    with read_annotations(written(tmp_path / "a.json", coco([[1, 1, 2, 2], box]))) as data:
        assert data.boxes.tolist() == [[1, 1, 2, 2], *([kept] if kept else [])]
        counts = dict.fromkeys(("degenerate", "outside", "clipped", "crowd"), 0)
        assert data.policy.counts() == counts | ({rule: 1} if rule else {})
        if rule:
            assert getattr(data.policy, rule) == (2,)
        assert len(data.box_spans.offsets) == len(data.boxes)
        assert record(data, len(data.boxes) - 1)["id"] == (2 if kept else 1)


def test_crowd_regions_stay_as_they_are_and_count_for_nothing(tmp_path: Path) -> None:
    content = coco([[-40, 5, 500, 20], [0, 0, 0, 0]], iscrowd=1)
    with read_annotations(written(tmp_path / "a.json", content)) as data:
        assert data.boxes.tolist() == [[-40, 5, 500, 20], [0, 0, 0, 0]]
        assert data.policy.counts() == {"degenerate": 0, "outside": 0, "clipped": 0, "crowd": 2}
        assert not data.instances().any()


def spread(corners: bool) -> list[list[float]]:
    """Forty boxes spread over the image, as corner pairs or as x, y, width, height."""
    dice = random.Random(3)
    boxes: list[list[float]] = []
    while len(boxes) < 40:
        width, height = dice.uniform(5, 30), dice.uniform(5, 30)
        x, y = dice.uniform(0, 100 - width), dice.uniform(0, 80 - height)
        boxes.append([x, y, x + width, y + height] if corners else [x, y, width, height])
    return boxes


def test_corner_pairs_are_refused_with_a_hint(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", coco(spread(corners=True)))
    with pytest.raises(DataFault, match=r"\[x, y, width, height\].*corners") as fault:
        read_annotations(path)
    assert str(path) in fault.value.message
    assert "x2 - x1" in (fault.value.remedy or "")


def test_boxes_over_the_edge_are_not_taken_for_corner_pairs(tmp_path: Path) -> None:
    over = [[70 + k, 50 + k, 40, 40] for k in range(20)]
    with read_annotations(written(tmp_path / "a.json", coco(spread(corners=False) + over))) as data:
        assert data.policy.counts()["clipped"] == 20


MEASURE = """
import resource, sys
from pathlib import Path
from cissod_bench.annotations.reading import read_annotations
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with read_annotations(Path(sys.argv[1])) as data:
    count = len(data.box_ids)
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units elsewhere")
def test_memory_does_not_follow_the_size_of_polygons(tmp_path: Path) -> None:
    count = 40_000
    head, tail = json.dumps(coco([])).split('"annotations": []')
    polygon = ",".join(f"{number}.25" for number in range(100, 600))
    template = '{"id":%d,"image_id":5,"category_id":2,"bbox":[1,2,3,4],"segmentation":[[' + polygon + "]]}"
    path = tmp_path / "big.json"
    with path.open("w") as file:
        file.write(f'{head}"annotations": [{template % 0}')
        file.writelines("," + template % number for number in range(1, count))
        file.write("]" + tail)
    assert path.stat().st_size > 120e6
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    read, megabytes = map(int, done.stdout.split())
    assert read == count
    assert megabytes < 60


def test_columns_have_the_promised_types(tiny_coco: Path) -> None:
    with read_annotations(tiny_coco / "tiny/annotations/train.json") as data:
        kinds = {
            name: getattr(data, name).dtype
            for name in ("image_ids", "widths", "box_image", "box_class", "boxes", "crowd")
        }
        assert kinds == {
            "image_ids": np.int64, "widths": np.int32, "box_image": np.int32, "box_class": np.int16,
            "boxes": np.float64, "crowd": np.bool_,
        }  # fmt: skip
