"""Labels of COCO, YOLO and PASCAL VOC: the same content from the same data, and faults with file, line and remedy."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from label_formats import SIZE, Photo, photos, voc_text, write_coco, write_images, write_voc, write_yolo
from PIL import Image

from cissod_bench.annotations.label_content import Labelled
from cissod_bench.annotations.label_files import format_of, read_labels
from cissod_bench.errors import DataFault

SEAL = Photo("one", (("seal", (10, 20, 30, 40)),))


def boxes(labelled: Labelled) -> list[list[float]]:
    return [one["bbox"] for one in labelled.content["annotations"]]


def yolo_with(tmp_path: Path, lines: str, names: str = "[boat, puffin, seal]", more: str = "") -> Path:
    """A YOLO data set of one image with these lines."""
    data = write_yolo(tmp_path, [SEAL])
    (tmp_path / "labels/train/one.txt").write_text(lines, encoding="utf-8")
    data.write_text(f"train: images/train\nnames: {names}\n{more}", encoding="utf-8")
    return data


def test_the_same_data_in_each_format_has_the_same_content(tmp_path: Path) -> None:
    shown = photos(12)
    write_images(tmp_path / "photos", shown)
    coco = read_labels(write_coco(tmp_path / "labels.json", shown), tmp_path / "photos")
    yolo = read_labels(write_yolo(tmp_path / "yolo", shown[::-1]))
    voc = read_labels(write_voc(tmp_path / "voc", shown[::-1]))
    assert json.dumps(yolo.content) == json.dumps(voc.content)
    for key in ("images", "annotations", "categories"):
        assert yolo.content[key] == coco.content[key]
    assert (yolo.images, voc.images) == (tmp_path / "yolo/images/train", tmp_path / "voc/JPEGImages")
    assert coco.classes == yolo.classes == voc.classes == ("boat", "puffin", "seal")
    assert [one.format for one in (coco, yolo, voc)] == ["coco", "yolo", "voc"]
    assert coco.notes == yolo.notes == voc.notes == ()


def test_a_packed_coco_file_keeps_all_of_its_content(tmp_path: Path) -> None:
    plain = write_coco(tmp_path / "labels.json", [SEAL])
    content = json.loads(plain.read_text()) | {"info": {"year": 2026}}
    packed = tmp_path / "labels.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(content).encode()))
    read = read_labels(packed)
    assert (read.content, read.images) == (content, tmp_path)


def test_an_outline_is_the_box_around_it(tmp_path: Path) -> None:
    read = read_labels(yolo_with(tmp_path, "2 0.1 0.5 0.3 0.25 0.2 0.75\n0 .25 .25 .75 .25 .75 .5 .25 .5\n"))
    assert boxes(read) == [[20.0, 40.0, 40.0, 80.0], [50.0, 40.0, 100.0, 40.0]]
    assert read.notes == ("2 outlines, read as the boxes around them",)


def test_key_points_behind_a_box_are_not_taken_for_an_outline(tmp_path: Path) -> None:
    data = yolo_with(tmp_path, "2 0.5 0.5 0.5 0.25 0.9 0.9 2 0.1 0.1 1\n", more="kpt_shape: [2, 3]\n")
    assert boxes(read_labels(data)) == [[50.0, 60.0, 100.0, 40.0]]


def test_names_of_yolo_may_be_numbered_and_look_like_other_things_of_yaml(tmp_path: Path) -> None:
    data = yolo_with(tmp_path, "7 0.5 0.5 0.5 0.5", names='\n  3: no\n  7: "1"\n  0: café')
    read = read_labels(data)
    assert [(one["id"], one["name"]) for one in read.content["categories"]] == [(1, "café"), (4, "no"), (8, "1")]
    assert read.content["annotations"][0]["category_id"] == 8


def test_a_part_of_yolo_is_a_folder_a_list_or_several(tmp_path: Path) -> None:
    shown = photos(4)
    data = write_yolo(tmp_path, shown[:2])
    for photo in shown[2:]:
        write_images(tmp_path / "more/images", [photo])
        (tmp_path / "more/labels").mkdir(exist_ok=True)
        (tmp_path / f"more/labels/{photo.stem}.txt").write_text("1 0.5 0.5 0.1 0.1")
    second, third = (f"more/images/{photo.stem}.png" for photo in shown[2:])
    (tmp_path / "list.txt").write_text(f"./{second}\n\n{tmp_path}/{third}\n./images/train/photo000.png\n")
    data.write_text("path: /not/here\ntrain:\n- images/train\n- list.txt\nval: ../list.txt\nnames: [a, b, c]\n")
    read = read_labels(data)
    names = [one["file_name"] for one in read.content["images"]]
    assert names == ["images/train/photo000.png", "images/train/photo001.png", second, third]
    assert read.images == tmp_path
    assert read.notes == ("1 images that are listed twice, read once",)
    assert len(read_labels(data, tmp_path, part="val").content["images"]) == 3


def test_an_image_without_a_label_file_shows_no_object_and_is_counted(tmp_path: Path) -> None:
    data = write_yolo(tmp_path, photos(3))
    (tmp_path / "labels/train/photo001.txt").unlink()
    (tmp_path / "labels/train/photo002.txt").write_text("\n")
    (tmp_path / "images/train/._photo000.png").write_bytes(b"of macOS")
    read = read_labels(data)
    assert len(read.content["images"]) == 3
    assert {one["image_id"] for one in read.content["annotations"]} == {1}
    assert read.counts == {"without_labels": 1}


def test_a_label_file_without_an_image_is_counted(tmp_path: Path) -> None:
    data = write_yolo(tmp_path, photos(3))
    (tmp_path / "images/train/photo001.png").rename(tmp_path / "images/train/photo001-renamed.png")
    (tmp_path / "labels/train/classes.txt").write_text("seal\n")
    read = read_labels(data)
    assert read.counts == {"without_labels": 1, "without_image": 1}
    assert "1 label files without an image, passed over" in read.notes


def test_a_list_of_some_images_leaves_the_labels_of_others_uncounted(tmp_path: Path) -> None:
    data = write_yolo(tmp_path, photos(3))
    (tmp_path / "some.txt").write_text("images/train/photo000.png\n")
    data.write_text(data.read_text().replace("train: images/train", "train: some.txt"))
    assert read_labels(data).counts == {}


def test_parts_of_an_image_that_exif_turns_are_those_of_the_turned_image(tmp_path: Path) -> None:
    data = yolo_with(tmp_path, "0 0.5 0.5 1 1")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(tmp_path / "images/train/one.jpg", exif=exif)
    (tmp_path / "images/train/one.png").unlink()
    read = read_labels(data)
    assert (read.content["images"][0]["width"], read.content["images"][0]["height"]) == SIZE[::-1]
    assert boxes(read) == [[0.0, 0.0, *map(float, SIZE[::-1])]]


def test_difficult_objects_of_voc_are_ignore_regions_and_pixels_are_counted_from_one(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, [SEAL])
    whole = Photo("one", (("seal", (0, 0, *SIZE)), ("boat", (10, 20, 30, 40))))
    (folder / "one.xml").write_text(voc_text(whole, difficult=[1]))
    read = read_labels(folder.parent)
    assert boxes(read) == [[0.0, 0.0, *map(float, SIZE)], [10.0, 20.0, 30.0, 40.0]]
    assert [one["iscrowd"] for one in read.content["annotations"]] == [0, 1]
    assert read.notes == ("1 objects marked as difficult, read as ignore regions",)


def test_a_photograph_of_voc_is_found_by_its_own_name_where_filename_names_none(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, photos(3))
    for stem, name in (("photo000", "C:\\photos\\old.jpg"), ("photo001", "")):
        text = (folder / f"{stem}.xml").read_text().replace(f"{stem}.png", name).replace("<width>200", "<width>0")
        (folder / f"{stem}.xml").write_text(text.replace("<height>160", "<height>0"))
    (folder / "photo002.xml").unlink()
    read = read_labels(folder)
    assert [one["file_name"] for one in read.content["images"]] == ["photo000.png", "photo001.png"]
    assert {(one["width"], one["height"]) for one in read.content["images"]} == {SIZE}
    assert read.counts == {"sizes_read": 2, "without_annotation": 1}


LINES = {
    "7 0.5 0.5 0.5 0.5": "a line begins with the number of a class, 0 to 2, and not with '7'",
    "seal 0.5 0.5 0.5 0.5": "'seal' is no number",
    "1 0.5 0.5 0.5": "behind the class stand four numbers .* here are 3",
    "1 0.5 0.5 0.5 0.5 0.9": "behind the class stand four numbers .* here are 5",
    "1 120 64 30 20": "parts of the image's width and height, 0 to 1, and 120 is not",
    "1 0.5 0.5 -0.001 0.5": "the sides of a box are not negative",
    "1 0.5 nan 0.1 0.5": "'nan' is no number",
}


@pytest.mark.parametrize("line", LINES)
def test_a_broken_line_of_yolo_is_told_with_its_file_and_number(tmp_path: Path, line: str) -> None:
    data = yolo_with(tmp_path, f"0 0.5 0.5 0.5 0.5\n\n{line}\n")
    with pytest.raises(DataFault, match=LINES[line]) as fault:
        read_labels(data)
    assert fault.value.message.startswith(f"{tmp_path}/labels/train/one.txt, line 3: ")
    assert str(data) in str(fault.value.remedy)


def test_all_broken_lines_and_images_of_yolo_are_told_at_once(tmp_path: Path) -> None:
    data = write_yolo(tmp_path, photos(3))
    labels = sorted((tmp_path / "labels/train").glob("*.txt"))
    labels[0].write_text("x\n0 .5 .5 .1 .1\n9 .5 .5 .1 .1\n")
    labels[2].write_text("0 .5 .5 .1\n" * 4)
    (tmp_path / "images/train" / f"{labels[1].stem}.png").write_text("no image")
    with pytest.raises(DataFault) as fault:
        read_labels(data)
    first, second, third, fourth, rest = fault.value.message.split("\n  ")
    assert [line.partition(": ")[0] for line in (first, second, fourth)] == [
        f"{labels[0]}, line 1", f"{labels[0]}, line 3", f"{labels[2]}, line 1",
    ]  # fmt: skip
    assert f"{labels[1].stem}.png" in third
    assert rest == "and 3 more."


DATA_YAML = {
    "names: [a": (1, "this is no YAML"),
    "- a": (None, "it holds no keys"),
    "train: x": (None, "the key 'names' is missing"),
    "train: images/train\nnames: [a, a]": (2, "names names 'a' twice"),
    "train: images/train\nnc: 4\nnames: [a]": (2, "nc is '4', but names holds 1 classes"),
    "names:\n  one: a": (1, "'one' is no such number"),
    "names: [a]\nval: images/train": (None, "there is no part 'train'; there is val"),
    "names: [a]\ntrain: photos": (2, "train is 'photos', but there is no .*photos"),
    "names: [a]\ntrain: list.txt": (None, r"list.txt, line 2: there is no image nothing.png"),
    "names: [a]\ntrain: {a: b}": (2, "train is a folder, a list file or several of these"),
}


@pytest.mark.parametrize("text", DATA_YAML)
def test_a_broken_data_yaml_is_told_with_its_line_and_a_remedy(tmp_path: Path, text: str) -> None:
    data = write_yolo(tmp_path, [SEAL])
    (tmp_path / "list.txt").write_text("images/train/one.png\nnothing.png\n")
    data.write_text(text)
    line, rule = DATA_YAML[text]
    with pytest.raises(DataFault, match=rule) as fault:
        read_labels(data)
    assert fault.value.remedy
    assert fault.value.message.startswith(f"{data}, line {line}: " if line else str(tmp_path))


def test_a_yolo_data_set_without_any_label_file_is_refused(tmp_path: Path) -> None:
    data = write_yolo(tmp_path, [SEAL])
    (tmp_path / "labels").rename(tmp_path / "texts")
    with pytest.raises(
        DataFault, match=r"none of the 1 images of train has a label file; .*labels/train/one.txt"
    ) as fault:
        read_labels(data)
    assert "labels beside the folder images" in str(fault.value.remedy)


VOC = {
    "<xmin>11": ("<xmin>eleven", 4, "object.bndbox.xmin must be a number"),
    "<name>seal</name>": ("<title/>", 4, "object.name is missing or empty"),
    "<width>200": ("<width>20.5", 1, "size.width must be a whole number"),
    "</annotation>": ("", 7, "this is no XML"),
}


@pytest.mark.parametrize("text", VOC)
def test_a_broken_annotation_of_voc_is_told_with_its_line_and_a_remedy(tmp_path: Path, text: str) -> None:
    folder = write_voc(tmp_path, [SEAL])
    instead, line, rule = VOC[text]
    (folder / "one.xml").write_text((folder / "one.xml").read_text().replace(text, instead))
    with pytest.raises(DataFault, match=rule) as fault:
        read_labels(folder)
    assert fault.value.message.startswith(f"{folder}/one.xml, line {line}: ")
    assert "VOCtrainval" not in str(fault.value.remedy)


def test_all_broken_annotations_of_voc_are_told_at_once(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, photos(3))
    for number, (text, instead) in enumerate([("<xmin>", "<xmin>x"), ("<width>", "<width>-")]):
        file = folder / f"photo00{number}.xml"
        file.write_text(file.read_text().replace(text, instead))
    with pytest.raises(DataFault) as fault:
        read_labels(folder)
    assert [line.partition(", ")[0].rpartition("/")[2] for line in fault.value.message.split("\n  ")] == [
        "photo000.xml", "photo001.xml",
    ]  # fmt: skip


def test_annotations_of_voc_without_photographs_are_named(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, photos(3))
    (tmp_path / "JPEGImages/photo001.png").unlink()
    with pytest.raises(DataFault, match=r"holds no photograph for 1 of 3 annotations in .*: photo001.xml"):
        read_labels(folder)


@pytest.mark.parametrize(("name", "kind"), [("a.JSON", "coco"), ("a.json.gz", "coco"), ("d.yml", "yolo"), (".", "voc")])
def test_the_name_of_a_source_says_its_format(tmp_path: Path, name: str, kind: str) -> None:
    assert format_of(tmp_path / name) == kind


def test_a_source_of_no_known_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("a")
    for name, what in (("labels.csv", "is of no format"), ("labels.txt", "does not exist")):
        with pytest.raises(DataFault, match=what) as fault:
            read_labels(tmp_path / name)
        assert "data.yaml" in str(fault.value.remedy)
    with pytest.raises(DataFault, match=r"holds no file whose name ends in \.xml"):
        read_labels(tmp_path)


def test_endings_in_capitals_are_those_of_labels(tmp_path: Path) -> None:
    data = write_yolo(tmp_path / "yolo", photos(3))
    plain = read_labels(data).content
    for label in sorted((tmp_path / "yolo/labels/train").glob("*.txt"))[1:]:
        label.rename(label.with_suffix(".TXT"))
    read = read_labels(data)
    assert (read.content, read.counts) == (plain, {})
    write_voc(tmp_path / "voc", photos(3))
    plain = read_labels(tmp_path / "voc").content
    for number, label in enumerate(sorted((tmp_path / "voc/Annotations").glob("*.xml"))):
        label.rename(label.with_suffix((".xml", ".XML", ".Xml")[number]))
    read = read_labels(tmp_path / "voc")
    assert (read.content, read.counts) == (plain, {})


def test_a_line_of_a_list_without_its_image_names_each_folder_once(tmp_path: Path) -> None:
    data = write_yolo(tmp_path, photos(3))
    (tmp_path / "some.txt").write_text("gone.png\n")
    data.write_text(data.read_text().replace("train: images/train", "train: some.txt"))
    with pytest.raises(DataFault, match=rf"some.txt, line 1: there is no image gone\.png in {tmp_path}\.\n"):
        read_labels(data)
