"""Parts that somebody has: what is labelled, what is not and what is scored, as a split that nobody drew."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Called
from label_formats import photos, write_coco, write_images, write_voc, write_yolo
from own_data import TASK, harbour, read, split_of, write
from PIL import Image

from cissod_bench.annotations.photographs import Known
from cissod_bench.catalogue import load_method
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.running.assembly import sources
from cissod_bench.running.plan import make_plan
from cissod_bench.split_folders.ensure import draw_options, ensure_split

Call = Callable[..., Called]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return the harbour's task file."""
    return harbour(tmp_path / "harbour")


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_all_labelled_boxes_are_shown_and_no_box_of_a_photograph_is_invented(own: Path) -> None:
    split = split_of(own)
    counts = split.manifest.counts
    assert (counts["labelled"], counts["unlabelled"], counts.get("D_m", 0)) == (12, 28, 0)
    labelled, source = read(split.folder / "labelled.json"), read(own.parent / "labelled.json")
    boxes = sorted((box["id"], tuple(box["bbox"])) for box in source["annotations"])
    assert sorted((box["id"], tuple(box["bbox"])) for box in labelled["annotations"]) == boxes
    for name in ("unlabelled.json", "hidden.json"):
        assert read(split.folder / name)["annotations"] == []
    assert not split.manifest.hidden_known
    assert {one.unlabelled_boxes for one in split.manifest.per_class.values()} == {None}
    assert {one.original_boxes for one in split.manifest.per_class.values()} == {None}
    assert split.manifest.groups == {"maj": ["circle", "square"], "min": ["heart", "arrow"]}


def test_sizes_of_photographs_come_from_their_headers_and_folders_below_are_read(own: Path) -> None:
    Image.new("RGB", (37, 21)).save(own.parent / "unlabelled" / "quay" / "wide.JPG", format="JPEG")
    (own.parent / "unlabelled" / "._wide.JPG").write_bytes(b"of macOS")
    (own.parent / "unlabelled" / "notes.txt").write_text("no image")
    images = {image["file_name"]: image for image in read(split_of(own).folder / "unlabelled.json")["images"]}
    assert (images["quay/wide.JPG"]["width"], images["quay/wide.JPG"]["height"]) == (37, 21)
    assert len(images) == 29


def test_a_photograph_that_lies_on_its_side_has_the_size_people_see(own: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(own.parent / "unlabelled" / "turned.jpg", exif=exif)
    task = find_task(str(own))
    assert task.exif == {"unlabelled": "apply"}
    images = {image["file_name"]: image for image in read(split_of(own).folder / "unlabelled.json")["images"]}
    assert (images["turned.jpg"]["width"], images["turned.jpg"]["height"]) == (20, 40)
    change(own, 'title = "Harbour"', 'title = "Harbour"\nexif = "ignore"')
    images = {
        image["file_name"]: image for image in read(split_of(own, force=True).folder / "unlabelled.json")["images"]
    }
    assert (images["turned.jpg"]["width"], images["turned.jpg"]["height"]) == (40, 20)


def test_images_of_the_labelled_and_the_scored_set_are_left_out_of_the_unlabelled_and_counted(own: Path) -> None:
    """By the file itself, over a link, and as a copy under another name; what cannot be read is counted, too."""
    photos, unlabelled = own.parent / "photos", own.parent / "unlabelled"
    labelled, scored = sorted(photos.glob("a*")), sorted(photos.glob("b*"))
    shutil.copy(labelled[0], unlabelled / "copy.png")
    os.link(labelled[1], unlabelled / "hard.png")
    (unlabelled / "soft.png").symlink_to(os.path.relpath(scored[0], unlabelled))
    (unlabelled / "twice.png").symlink_to(next(iter(unlabelled.glob("a*"))).name)
    (unlabelled / "broken.jpg").write_text("no image")
    manifest = split_of(own).manifest
    assert manifest.counts["unlabelled"] == 28
    assert manifest.left_out == {
        "listed twice in D_u, read once": 1,
        "also in the labelled set, left out of D_u": 2,
        "also in the scored set, left out of D_u": 1,
        "of D_u that cannot be read, left out": 1,
    }


def test_all_photographs_in_one_folder_are_divided_by_the_two_annotation_files(own: Path) -> None:
    for path in (own.parent / "photos").iterdir():
        shutil.move(path, own.parent / "unlabelled" / path.name)
    change(own, 'images = "photos"', 'images = "unlabelled"')
    manifest = split_of(own).manifest
    assert (manifest.counts["labelled"], manifest.counts["unlabelled"]) == (12, 28)


def test_only_files_of_equal_size_are_read_for_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in {"known": b"abc", "other": b"abcd", "same": b"xyz", "copy": b"abc"}.items():
        (tmp_path / name).write_bytes(content)
    opened: list[str] = []
    plain = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode: (opened.append(path.name), plain(path, *mode))[1])
    known = Known([tmp_path / "known", tmp_path / "gone"])
    assert [known.holds(tmp_path / name) for name in ("known", "other", "gone")] == [True, False, False]
    assert opened == []
    assert [known.holds(tmp_path / name) for name in ("same", "copy")] == [False, True]
    assert sorted(opened) == ["copy", "known", "same"]


def test_several_folders_a_list_and_a_json_file_name_photographs(own: Path) -> None:
    for text, count in (
        ('images = ["unlabelled", "unlabelled/quay"]', 28),  # the second lies in the first
        ('images = "unlabelled"\nfiles = "list.txt"', 2),
        ('images = "unlabelled"\nfiles = "list.json"', 1),
    ):
        names = sorted(path.name for path in (own.parent / "unlabelled").glob("a*"))
        (own.parent / "list.txt").write_text(f"{names[0]}\n\n./{names[1]}\n", encoding="utf-8")
        boxes = [{"image_id": 1, "bbox": "what nobody reads"}]
        write(own.parent / "list.json", {"images": [{"file_name": names[2]}], "annotations": boxes})
        own.write_text(TASK.replace('images = "unlabelled"', text), encoding="utf-8")
        assert split_of(own, own.parents[1] / text[-9:-1]).manifest.counts["unlabelled"] == count


def test_a_listed_photograph_keeps_its_id_when_others_are_added(own: Path) -> None:
    before = {image["file_name"]: image["id"] for image in read(split_of(own).folder / "unlabelled.json")["images"]}
    Image.new("RGB", (32, 32)).save(own.parent / "unlabelled" / "0.png")
    with pytest.raises(DataFault, match="drawn from another") as fault:
        split_of(own)
    assert "make-splits" in str(fault.value.remedy)
    images = read(split_of(own, force=True).folder / "unlabelled.json")["images"]
    after = {image["file_name"]: image["id"] for image in images}
    assert before.items() < after.items()


def test_nothing_is_written_again_while_nothing_changes(own: Path) -> None:
    made = own.parents[1] / "work" / "data" / "harbour" / "annotations" / "train.json"
    first = split_of(own)
    when = made.stat().st_mtime_ns
    again = split_of(own)
    assert (first.fresh, again.fresh, made.stat().st_mtime_ns) == (True, False, when)
    assert split_of(own, own.parents[1] / "other").manifest.split_sha256 == first.manifest.split_sha256


def test_an_image_record_without_a_size_has_that_of_its_image(own: Path) -> None:
    path = own.parent / "labelled.json"
    content = read(path)
    sizes = {image["id"]: (image.pop("width"), image.pop("height")) for image in content["images"]}
    write(path, content)
    images = read(split_of(own).folder / "labelled.json")["images"]
    assert {image["id"]: (image["width"], image["height"]) for image in images} == sizes


def test_classes_of_the_scored_set_are_joined_by_name(own: Path) -> None:
    path = own.parent / "val.json"
    content = read(path)
    moved = {record["id"]: record["id"] + 40 for record in content["categories"]}
    content["categories"] = [{**record, "id": moved[record["id"]]} for record in content["categories"][::-1]]
    for box in content["annotations"]:
        box["category_id"] = moved[box["category_id"]]
    write(path, content)
    split_of(own)
    val = read(own.parents[1] / "work/data/harbour/annotations/val.json")
    assert val["categories"] == read(own.parent / "labelled.json")["categories"]
    assert [box["category_id"] + 40 for box in val["annotations"]] == [
        box["category_id"] for box in content["annotations"]
    ]


def test_a_scored_class_that_nobody_labelled_is_named(own: Path) -> None:
    content = read(own.parent / "val.json")
    content["categories"][0]["name"] = "Circle"
    write(own.parent / "val.json", content)
    told = r"1 of its classes with boxes are none of .*labelled\.json: 'Circle'.* Are 'circle' and 'Circle' one class\?"
    with pytest.raises(DataFault, match=told):
        split_of(own)


def test_classes_that_count_may_be_named_and_boxes_of_others_are_left_out(own: Path) -> None:
    content = read(own.parent / "val.json")
    content["categories"][0]["name"] = "puffin"  # scored, and nobody labelled one
    write(own.parent / "val.json", content)
    with pytest.raises(DataFault) as fault:
        split_of(own)
    assert 'classes = ["circle", "square", "heart", "arrow"]' in str(fault.value.remedy)
    change(own, "minority = ", 'classes = ["heart", "arrow", "square"]\nminority = ')
    split = split_of(own)
    assert split.manifest.groups == {"maj": ["square"], "min": ["heart", "arrow"]}
    source = read(own.parent / "labelled.json")
    kept = {record["id"] for record in source["categories"] if record["name"] != "circle"}
    assert split.manifest.boxes.labelled == sum(box["category_id"] in kept for box in source["annotations"])
    assert split.manifest.counts["labelled"] == 12
    change(own, '"square"]', '"squid"]')
    with pytest.raises(
        DataFault, match=r"There is no class 'squid' in .*labelled\.json or .*val\.json; there is 'circle'"
    ):
        split_of(own)


FORMATS = {
    "coco": (
        'annotations = "coco/train.json"\nimages = "coco/images"',
        'annotations = "coco/val.json"\nimages = "coco/val"',
    ),
    "yolo": ('annotations = "yolo/data.yaml"', 'annotations = "yolo_val/data.yaml"'),
    "voc": ('annotations = "voc/Annotations"', 'annotations = "voc_val"\nimages = "voc_val/JPEGImages"'),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_parts_of_any_format_give_one_split(tmp_path: Path, kind: str) -> None:
    shown = photos(12)
    write_images(tmp_path / "more", photos(20, seed=1))  # the first 8 of 20 greys are those of labelled images
    for part, some in (("train", shown[:8]), ("val", shown[8:])):
        end = "" if part == "train" else "_val"
        write_coco(tmp_path / "coco" / f"{part}.json", some)
        write_images(tmp_path / "coco" / ("images" if part == "train" else "val"), some)
        write_yolo(tmp_path / f"yolo{end}", some, part=part)
        (tmp_path / f"voc{end}").mkdir()
        write_voc(tmp_path / f"voc{end}", some)
    labelled, val = FORMATS[kind]
    text = (
        f'title = "Any"\nminority = ["puffin"]\n[labelled]\n{labelled}\n[unlabelled]\nimages = "more"\n[val]\n{val}\n'
    )
    (tmp_path / "any.toml").write_text(text, encoding="utf-8")
    task = find_task(str(tmp_path / "any.toml"))
    split = ensure_split(task, tmp_path, tmp_path / "work", draw_options(task))
    assert (split.manifest.counts["labelled"], split.manifest.counts["unlabelled"]) == (8, 12)
    boxes = [
        {key: box[key] for key in ("image_id", "category_id", "bbox")}
        for box in read(split.folder / "labelled.json")["annotations"]
    ]
    coco = read(tmp_path / "coco" / "train.json")["annotations"]
    assert boxes == [{key: box[key] for key in ("image_id", "category_id", "bbox")} for box in coco]
    if kind == "yolo":  # a label file that was changed is noticed
        (tmp_path / "yolo/labels/train/photo000.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        with pytest.raises(DataFault, match="drawn from another"):
            ensure_split(task, tmp_path, tmp_path / "work", draw_options(task))


def test_what_is_wrong_in_a_source_is_told_of_that_source(own: Path) -> None:
    content = read(own.parent / "labelled.json")
    content["annotations"][3]["bbox"] = [1, 2, "three", 4]
    write(own.parent / "labelled.json", content)
    with pytest.raises(DataFault, match=r"harbour/labelled\.json: annotations\[3\]"):
        split_of(own)
    assert not (own.parents[1] / "work/data/harbour").exists()


@pytest.mark.parametrize(
    ("given", "option"),
    [({"dm_minority": "ignore"}, "--dm-minority"), ({"labelled_percent": 5.0}, "--labelled-percent"),
     ({"cover": "useful"}, "--cover"), ({"min_instances": 3}, "--min-instances")],
)  # fmt: skip
def test_an_option_that_needs_a_draw_or_hidden_boxes_is_refused(own: Path, given: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageFault, match=rf"nothing is drawn and {option} has no meaning: .* are unknown"):
        split_of(own, **given)


def test_a_share_of_the_unlabelled_photographs_may_be_taken(own: Path) -> None:
    manifest = split_of(own, unlabelled_percent=50.0).manifest
    assert (manifest.counts["unlabelled"], manifest.left_out) == (14, {"not drawn into D_u": 14})


def test_the_oracle_is_refused_where_the_boxes_of_photographs_are_unknown(own: Path) -> None:
    with pytest.raises(UsageFault, match="trains on the boxes of D_u, and those of Harbour are unknown"):
        make_plan(find_task(str(own)), load_method("oracle"), data_root=own.parent, work_dir=own.parents[1] / "work")


def link_away(own: Path) -> None:
    """Put links in the place of some photographs, to a folder beside theirs."""
    originals = own.parent / "originals"
    originals.mkdir()
    for path in list((own.parent / "unlabelled").glob("a*")) + list((own.parent / "photos").glob("a*")):
        shutil.move(path, originals / path.name)
        path.symlink_to(os.path.relpath(originals / path.name, path.parent))


def test_a_training_reads_photographs_over_links_within_the_data_root(own: Path) -> None:
    link_away(own)
    method = load_method("soft-teacher")
    plan = make_plan(find_task(str(own)), method, data_root=own.parent, work_dir=own.parents[1] / "work")
    assert (plan.preset, plan.task.crowd_ignored) == ("photo", True)
    labelled, unlabelled = sources(plan)
    assert (len(labelled), len(unlabelled)) == (12, 28)
    for source in (labelled, unlabelled):
        assert all(source.image(row).ndim == 3 for row in range(len(source)))
    row = next(row for row in range(len(unlabelled)) if unlabelled.file(row).is_symlink())
    with pytest.raises(DataFault, match="leaves"):
        replace(unlabelled, within=None).file(row)


def test_pictures_and_a_publication_follow_the_links_that_a_training_follows(own: Path, call: Call) -> None:
    link_away(own)
    split, work = split_of(own), own.parents[1] / "work"
    places = ("--data-root", own.parent, "--work-dir", work)
    shown = call("show", split.folder, *places)
    assert (shown.code, "leaves" in shown.err) == (0, False), shown.err
    done = call("splits", "export", split.folder, "--format", "huggingface", "--out", work / "hub", *places)
    assert done.code == 0, done.err
    copies = [path for path in (work / "hub" / "unlabelled").rglob("a*") if path.is_file()]
    assert copies
    assert not any(path.is_symlink() for path in copies)


@pytest.mark.parametrize(
    ("head", "groups"),
    [
        ('groups = "frequency"\nbounds = [4, 5]\n', {"f": ["circle"], "c": ["square", "arrow"], "r": ["heart"]}),
        ("", {"classes": ["circle", "square", "heart", "arrow"]}),
    ],
)
def test_classes_are_grouped_by_the_images_that_show_them_or_not_at_all(
    own: Path, head: str, groups: dict[str, list[str]], call: Call
) -> None:
    change(own, 'minority = ["heart", "arrow"]\n', head)
    split = split_of(own)
    assert split.manifest.groups == groups
    assert call("splits", "verify", split.folder, "--data-root", own.parent).code == 0


def test_paths_may_be_absolute_or_lie_below_the_data_root(own: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "tasks"
    elsewhere.mkdir()
    moved = elsewhere / "moved.toml"
    text = TASK.replace('"unlabelled"', f'"{own.parent / "unlabelled"}"').replace(
        '"labelled.json"', '"a/labelled.json"'
    )
    moved.write_text(text, encoding="utf-8")
    shutil.copytree(own.parent, tmp_path / "data" / "a")
    shutil.copy(own.parent / "val.json", tmp_path / "data" / "val.json")
    (tmp_path / "data" / "photos").symlink_to(own.parent / "photos")
    task = find_task(str(moved))
    split = ensure_split(task, tmp_path / "data", tmp_path / "work", draw_options(task))
    assert (split.manifest.counts["labelled"], split.manifest.counts["unlabelled"]) == (12, 28)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[labelled]", "[train]", "no key 'unlabelled'|has no place beside it"),
        ("minority = ", "bounds = [10, 100]\nminority = ", 'bounds belong to groups = "frequency"'),
        ("minority = ", 'groups = "frequency"\nminority = ', "divide the classes in two ways"),
        ('minority = ["heart", "arrow"]', 'groups = "minority"', "minority names no class"),
        ('minority = ["heart", "arrow"]', 'groups = "frequency"\nbounds = [9, 9]', "the first below the second"),
        (
            'images = "unlabelled"',
            'image = "unlabelled"',
            "no key 'unlabelled.image'. Did you mean 'unlabelled.images'",
        ),
        ('images = "unlabelled"', "images = []", "unlabelled.images names no folder"),
        ('images = "unlabelled"', 'images = ["a", "b"]\nfiles = "x.txt"', "names photographs of one folder"),
        ('"labelled.json"', r'"a\train.json"', "labelled.annotations must be a printable path"),
        ('title = "Harbour"', 'labelled_percent = 3\ntitle = "Harbour"', "no key 'labelled_percent'"),
        ('images = "unlabelled"', 'images = "unlabelled"\nminority = []', "belongs to the whole file"),
    ],
)
def test_a_wrong_file_of_parts_is_refused_by_key(own: Path, old: str, new: str, told: str) -> None:
    change(own, old, new)
    with pytest.raises(UsageFault, match=told) as fault:
        find_task(str(own))
    assert str(own) in fault.value.message
    assert fault.value.remedy


def test_the_commands_say_what_is_unknown(own: Path, call: Call) -> None:
    work = own.parents[1] / "work"
    done = call("make-splits", "--task", own, "--work-dir", work)
    assert done.code == 0, done.err
    assert "(your parts, nothing drawn)" in done.out
    assert "unknown hidden boxes" in done.out
    assert "unknown hidden boxes" in call("splits", "show", "harbour", "--work-dir", work).out
    checked = call("data", "check", "--task", own, "--deep", "--work-dir", work, "--json")
    (found,) = json.loads(checked.out)
    assert (found["task"], found["state"]) == ("harbour", "ok")


def test_a_folder_without_photographs_is_named(own: Path) -> None:
    shutil.rmtree(own.parent / "unlabelled" / "quay")
    for path in (own.parent / "unlabelled").iterdir():
        path.unlink()
    with pytest.raises(DataFault, match=r"unlabelled holds no image \(\.bmp"):
        split_of(own)
