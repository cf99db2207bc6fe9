from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from split_folders import FILES, content, data_bytes, folder

from cissod_bench.catalogue import load_task
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.splitting.data_files import add_keys, rewrite_box
from cissod_bench.splitting.manifest import read_manifest

Call = Callable[..., Any]


def test_four_files_are_written_and_agree(split: Call, tmp_path: Path, tiny_coco: Path) -> None:
    assert split().code == 0
    made = folder(tmp_path)
    assert sorted(path.name for path in made.iterdir()) == sorted([*FILES, "manifest.json"])
    source = content(tiny_coco / "tiny/annotations/train.json")
    labelled, unlabelled, hidden = (content(made / name) for name in FILES)
    manifest = read_manifest(made).document

    parts = {image["id"]: image["part"] for image in labelled["images"]}
    ids = {image["id"] for image in unlabelled["images"]}
    assert set(parts) | ids == {image["id"] for image in source["images"]}
    assert not set(parts) & ids
    assert unlabelled["annotations"] == []
    assert hidden["images"] == unlabelled["images"]
    assert {box["image_id"] for box in hidden["annotations"]} <= ids
    assert {box["image_id"] for box in labelled["annotations"]} <= set(parts)
    minority = {one["id"] for one in source["categories"] if one["name"] in ("heart", "arrow")}
    of_d_m = [box for box in labelled["annotations"] if parts[box["image_id"]] == "D_m"]
    assert of_d_m
    assert not any(box["category_id"] in minority for box in of_d_m)

    counts = manifest["counts"]
    assert counts["D_m"] == sum(part == "D_m" for part in parts.values())
    assert counts["D_s"] == sum(part == "D_s" for part in parts.values())
    assert counts["labelled"] == len(parts)
    assert counts["unlabelled"] == len(ids)
    assert manifest["boxes"]["labelled"] == len(labelled["annotations"])
    assert manifest["boxes"]["hidden"] == len(hidden["annotations"])
    names = {one["id"]: one["name"] for one in source["categories"]}
    for name, count in manifest["per_class"].items():
        boxes = [box for box in labelled["annotations"] if names[box["category_id"]] == name]
        unseen = [box for box in hidden["annotations"] if names[box["category_id"]] == name]
        assert count == {
            "images": len({box["image_id"] for box in boxes}),
            "boxes": len(boxes),
            "unlabelled_images": len({box["image_id"] for box in unseen}),
            "unlabelled_boxes": len(unseen),
            "original_boxes": sum(
                names[box["category_id"]] == name and not box.get("iscrowd") for box in source["annotations"]
            ),
            "dropped_boxes": sum(
                names[box["category_id"]] == name and parts.get(box["image_id"]) == "D_m" and name in ("heart", "arrow")
                for box in source["annotations"]
            ),
            "ignored_boxes": 0,
        }
    assert manifest["groups"] == {"maj": ["circle", "square", "triangle"], "min": ["heart", "arrow"]}
    assert manifest["below_minimum"] == []


def test_the_manifest_holds_what_other_programs_rely_on(split: Call, tmp_path: Path, tiny_coco: Path) -> None:
    split()
    made = folder(tmp_path)
    manifest = read_manifest(made).document
    assert manifest["schema"] == 1
    assert (manifest["task"], manifest["title"]) == ("tiny", "Tiny shapes")
    assert (manifest["split_seed"], manifest["cover"], manifest["dm_minority"]) == (0, "useful", "drop")
    assert (manifest["labelled_percent"], manifest["min_instances"]) == (20.0, 3)
    assert manifest["classes"] == ["circle", "square", "triangle", "heart", "arrow"]
    assert manifest["images"] == {"train": "tiny/images/train", "val": "tiny/images/val"}
    assert (manifest["metric"], manifest["max_dets"]) == ("coco", 100)
    for role in ("train", "val"):
        path = tiny_coco / f"tiny/annotations/{role}.json"
        wanted = {"path": f"tiny/annotations/{role}.json", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        assert manifest["inputs"][role] == wanted
    assert manifest["val"] == manifest["inputs"]["val"]
    assert manifest["files"] == {name: hashlib.sha256((made / name).read_bytes()).hexdigest() for name in FILES}
    lines = "".join(f"{manifest['files'][name]}  {name}\n" for name in FILES)
    assert manifest["split_sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert str(tmp_path) not in (made / "manifest.json").read_text(encoding="utf-8")


def test_records_without_change_are_the_inputs_bytes(split: Call, tmp_path: Path, tiny_coco: Path) -> None:
    path = tiny_coco / "tiny/annotations/train.json"
    odd = content(path)
    for box in odd["annotations"]:
        box["note"] = {"é\u2028": [1.50, 1e-7], "s": " a , } b "}
    path.write_text(json.dumps(odd, ensure_ascii=False, separators=(" , ", ": ")), encoding="utf-8")
    split()
    source = path.read_bytes()
    lines = [line.rstrip(b",") for line in (folder(tmp_path) / "hidden.json").read_bytes().splitlines()]
    records = [line for line in lines if line.startswith(b'{"id"') and b'"image_id"' in line]
    assert len(records) > 20
    assert all(record in source for record in records)


def test_order_packing_and_layout_of_the_input_do_not_matter(split: Call, tmp_path: Path, tiny_coco: Path) -> None:
    split()
    path = tiny_coco / "tiny/annotations/train.json"
    records = content(path)
    shuffle = random.Random(1).shuffle
    for key in ("images", "annotations", "categories"):
        shuffle(records[key])
    parts = {key: ",\n  ".join(json.dumps(one, separators=(",", ":")) for one in rows) for key, rows in records.items()}
    text = "{" + ", ".join(f'"{key}": [ {parts[key]} ]' for key in ("categories", "annotations", "images")) + "}\n"
    path.with_name("train.json.gz").write_bytes(gzip.compress(text.encode()))
    path.unlink()
    assert split(work="again").code == 0
    assert data_bytes(folder(tmp_path)) == data_bytes(folder(tmp_path, work="again"))
    one, other = (read_manifest(folder(tmp_path, work=work)).document for work in ("work", "again"))
    assert one["inputs"].pop("train") != other["inputs"].pop("train")
    assert one == other


def test_other_seeds_give_other_bytes(split: Call, tmp_path: Path) -> None:
    assert split("--split-seed", 1, "--split-seed", 2).code == 0
    assert data_bytes(folder(tmp_path, 1)) != data_bytes(folder(tmp_path, 2))


def test_json_output_is_a_list_of_folders_with_manifests(split: Call, tmp_path: Path) -> None:
    done = split("--split-seed", 0, "--split-seed", 1, "--json")
    results = json.loads(done.out)
    assert [one["dir"] for one in results] == [str(folder(tmp_path, seed)) for seed in (0, 1)]
    assert {key: value for key, value in results[1].items() if key != "dir"} == read_manifest(
        folder(tmp_path, 1)
    ).document


def test_the_summary_tells_what_was_drawn(split: Call, tmp_path: Path) -> None:
    text = split().out
    manifest = read_manifest(folder(tmp_path)).document
    for part in (
        f"D_m {manifest['counts']['D_m']} + D_s {manifest['counts']['D_s']}",
        f"{manifest['boxes']['hidden']} hidden boxes",
        "classes below 3 boxes in D_l: maj none, min none",
        f"imbalance in D_l {manifest['imbalance']:,} : 1",
        manifest["split_sha256"],
        "peak memory",
    ):
        assert part in text


def test_a_dry_run_writes_nothing_and_tells_the_same_counts(split: Call, tmp_path: Path) -> None:
    planned = json.loads(split("--dry-run", "--json").out)[0]
    assert not (tmp_path / "work").exists()
    drawn = json.loads(split("--json").out)[0]
    for key in ("counts", "boxes", "per_class", "ids_sha256", "inputs"):
        assert planned[key] == drawn[key]


def test_ignored_minority_boxes_of_d_m_are_kept_as_ignore_regions(split: Call, tmp_path: Path, tiny_coco: Path) -> None:
    split("--dm-minority", "ignore")
    labelled = content(folder(tmp_path) / "labelled.json")
    parts = {image["id"]: image["part"] for image in labelled["images"]}
    source = {box["id"]: box for box in content(tiny_coco / "tiny/annotations/train.json")["annotations"]}
    ignored = [box for box in labelled["annotations"] if box["iscrowd"]]
    assert ignored
    for box in ignored:
        assert parts[box["image_id"]] == "D_m"
        assert source[box["id"]] == {**box, "iscrowd": 0}
    manifest = read_manifest(folder(tmp_path)).document
    assert manifest["rewritten"]["ignored"] == sorted(box["id"] for box in ignored)
    assert manifest["boxes"]["ignored"] == len(ignored)
    assert manifest["boxes"]["labelled"] == len(labelled["annotations"]) - len(ignored)


def test_odd_boxes_are_dropped_or_clipped_and_counted(split: Call, tmp_path: Path, tiny_coco: Path) -> None:
    path = tiny_coco / "tiny/annotations/train.json"
    odd = content(path)
    first, second, third, fourth = odd["annotations"][:4]
    first["bbox"][2] = 0
    second["bbox"][0] = 5000.0
    third["bbox"] = [-10.0, -5.0, 40.0, 30.0]
    third["area"] = 1200.0
    fourth["iscrowd"] = 1
    path.write_text(json.dumps(odd), encoding="utf-8")
    text = split().out
    manifest = read_manifest(folder(tmp_path)).document
    assert manifest["box_policy"] == {"degenerate": 1, "outside": 1, "clipped": 1, "crowd": 1}
    assert manifest["dropped"] == {"degenerate": [first["id"]], "outside": [second["id"]]}
    assert manifest["rewritten"]["clipped"] == [third["id"]]
    for told in ("1 without area, dropped", "1 outside their image, dropped", "1 clipped", "1 crowd regions"):
        assert told in text
    boxes = {box["id"]: box for name in FILES for box in content(folder(tmp_path) / name)["annotations"]}
    assert first["id"] not in boxes
    assert second["id"] not in boxes
    if third["id"] in boxes:  # a minority box of D_m is dropped
        assert boxes[third["id"]] == {**third, "bbox": [0, 0, 30, 25], "area": 750}


def test_a_rewritten_record_keeps_the_bytes_of_its_other_values() -> None:
    record = b'{"segmentation":[[1.50,2e1]],"iscrowd":0,"bbox":[1,2,3,4],"area":7.0,"id":5}'
    assert rewrite_box(record, None, ignore=True) == record.replace(b'"iscrowd":0', b'"iscrowd":1')
    assert rewrite_box(b'{"id":5}', None, ignore=True) == b'{"id":5,"iscrowd":1}'


def test_a_part_is_added_or_replaced() -> None:
    assert add_keys(b'{ "id":1}', {"part": "D_s"}) == b'{"part":"D_s","id":1}'
    assert add_keys(b'{"id":1,"part":"D_m"}', {"part": "D_s"}) == b'{"part":"D_s","id":1}'
    assert json.loads(add_keys(b'{"id":1,"file_name":"\\"part\\".jpg"}', {"part": "D_m"}))["file_name"] == '"part".jpg'


def test_the_minority_can_be_named_in_a_file(split: Call, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("circle\n\nstar-shaped\n", encoding="utf-8")
    assert "There is no class 'star-shaped'" in split("--minority", names).err
    names.write_text("square\n\ncircle\n", encoding="utf-8")
    assert split("--minority", names).code == 0
    assert read_manifest(folder(tmp_path)).document["groups"]["min"] == ["circle", "square"]
    names.write_text("\n", encoding="utf-8")
    assert split("--minority", names).code == 2
    assert split("--minority", tmp_path / "none.txt").code == 2


def test_missing_files_are_named_with_their_official_source(call: Call, tmp_path: Path) -> None:
    done = call("make-splits", "--task", "coco-split1", "--data-root", tmp_path, "--work-dir", tmp_path / "work")
    assert done.code == 3
    assert "instances_train2017.json" in done.err
    assert "images.cocodataset.org" in done.err
    assert not (tmp_path / "work/splits/coco-split1/seed0").exists()


def test_without_a_task_those_whose_files_are_there_are_drawn(
    call: Call, tmp_path: Path, tiny_coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"coco-split1": load_task("coco-split1"), "tiny": find_task(str(tiny_coco / "tiny.toml"))}
    monkeypatch.setattr("cissod_bench.catalogue.list_tasks", lambda: known)
    monkeypatch.setattr("cissod_bench.catalogue.load_task", known.__getitem__)
    done = call("make-splits", "--data-root", tiny_coco, "--work-dir", tmp_path / "work")
    assert done.code == 0
    assert "coco-split1 is left out" in done.err
    assert "instances_val2017.json: http://images.cocodataset.org" in done.err
    assert sorted(path.name for path in (tmp_path / "work/splits").iterdir()) == ["tiny"]

    del known["tiny"]
    done = call("make-splits", "--data-root", tiny_coco, "--work-dir", tmp_path / "work")
    assert done.code == 3
    assert "No task's files are below" in done.err


def test_val_must_name_the_same_classes(split: Call, tmp_path: Path, tiny_coco: Path) -> None:
    path = tiny_coco / "tiny/annotations/val.json"
    val = content(path)
    val["categories"][0]["name"] = "disc"
    path.write_text(json.dumps(val), encoding="utf-8")
    done = split()
    assert done.code == 3
    assert "category 1 is 'disc', but it is 'circle' in" in done.err
    assert not folder(tmp_path).exists()


def test_val_must_name_every_class_of_train(split: Call, tmp_path: Path, tiny_coco: Path) -> None:
    path = tiny_coco / "tiny/annotations/val.json"
    val = content(path)
    gone = [val["categories"].pop(1), val["categories"].pop()]
    val["annotations"] = [one for one in val["annotations"] if one["category_id"] not in [it["id"] for it in gone]]
    path.write_text(json.dumps(val), encoding="utf-8")
    done = split()
    assert done.code == 3
    assert f"{path}: {gone[0]['name']!r}, category {gone[0]['id']} of" in done.err
    assert "is missing (and 1 more)" in done.err
    assert not folder(tmp_path).exists()


def test_coco_tools_read_the_files(split: Call, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    split()
    labelled = COCO(str(folder(tmp_path) / "labelled.json"))
    manifest = read_manifest(folder(tmp_path)).document
    assert len(labelled.getImgIds()) == manifest["counts"]["labelled"]
    assert [one["name"] for one in labelled.loadCats(sorted(labelled.getCatIds()))] == manifest["classes"]
