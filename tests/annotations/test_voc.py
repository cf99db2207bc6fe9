"""The reader of PASCAL VOC's XML: pixels from 1, corners inside; what is broken is told with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from voc_folders import BOX, add, add_image, annotation_text, name_of, object_text

from cissod_bench.annotations.voc import CLASSES, VocFolder, read_voc
from cissod_bench.errors import DataFault
from cissod_bench.files import xml_trees
from cissod_bench.splitting.voc_files import VOC2012

NAME = name_of(1)


def read(root: Path) -> VocFolder:
    return read_voc(root / VOC2012, showing=("dog", "cat"))


def test_corners_from_one_become_a_corner_from_zero_and_two_sides(tmp_path: Path) -> None:
    whole, part = ("dog", (1, 1, 40, 30)), ("person", (2.5, 3.25, 2.5, 10))
    add_image(tmp_path, 1, whole, part)
    (image,) = read(tmp_path).images
    assert (image.file_name, image.number, image.width, image.height) == ("2008_000001.jpg", 2008000001, 40, 30)
    assert [(found.name, found.box) for found in image.objects] == [
        ("dog", (0, 0, 40, 30)),
        ("person", (1.5, 2.25, 1, 7.75)),
    ]


def test_an_image_whose_only_dog_is_difficult_is_not_chosen(tmp_path: Path) -> None:
    add_image(tmp_path, 1, ("cat", BOX), difficult=[("dog", BOX)])
    add_image(tmp_path, 2, ("person", BOX), difficult=[("dog", BOX)])
    (image,) = read(tmp_path).images
    assert [found.difficult for found in image.objects] == [False, True]
    assert image.shown == {"cat"}


def test_an_object_that_does_not_say_whether_it_is_difficult_is_not(tmp_path: Path) -> None:
    text = object_text(("dog", BOX)).replace("<difficult>0</difficult>", "")
    add(tmp_path, NAME, annotation_text(NAME, text))
    assert not read(tmp_path).images[0].objects[0].difficult


def test_images_come_in_the_order_of_their_numbers_and_what_lacks_its_other_half_is_named(tmp_path: Path) -> None:
    for number in (30, 4, 200):
        add_image(tmp_path, number, ("dog", BOX))
    (tmp_path / VOC2012 / "JPEGImages" / name_of(30)).unlink()
    (tmp_path / VOC2012 / "Annotations" / "2008_000200.xml").unlink()
    found = read(tmp_path)
    assert [image.file_name for image in found.images] == [name_of(4)]
    assert (found.lost, found.unnamed) == ((name_of(30),), ("2008_000200.xml",))


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "cut off": (lambda text: text[:-30], r"line \d+: this is no XML \(no element found"),
    "empty": (lambda text: "", r"this is no XML \(no element found"),
    "unknown encoding": (lambda text: '<?xml version="1.0" encoding="of mine"?>' + text, "this is no XML"),
    "entity": (lambda text: '<!DOCTYPE a [<!ENTITY b "cc">]>' + text, "a document type is declared"),
    "deep": (lambda text: "<a>" * 40 + "</a>" * 40, "elements nest deeper than 32 levels"),
    "another root": (lambda text: "<a/>", "the outermost element must be annotation, and is 'a'"),
    "no name": (lambda text: text.replace("<name>dog</name>", ""), "object.name is missing or empty"),
    "unknown class": (lambda text: text.replace(">dog<", ">wolf<"), "object.name must be a class of VOC .* is 'wolf'"),
    "odd difficult": (lambda text: text.replace("<difficult>0", "<difficult>no"), "object.difficult must be 0 or 1"),
    "another file": (lambda text: text.replace(NAME, name_of(2)), "filename must be 2008_000001.jpg"),
    "no size": (lambda text: text.replace("size>", "sighs>"), "annotation.size.width is missing or empty"),
    "size 0": (lambda text: text.replace("<height>30", "<height>0"), "size.height must be a whole number .* is 0"),
    "half a pixel": (lambda text: text.replace("<width>40", "<width>40.5"), "size.width must be a whole number"),
    "no corner": (lambda text: text.replace("<xmin>3.0</xmin>", ""), "object.bndbox.xmin is missing or empty"),
    "no number": (lambda text: text.replace("<xmin>3.0", "<xmin>three"), "xmin must be a number, and is 'three'"),
    "not finite": (lambda text: text.replace("<xmin>3.0", "<xmin>nan"), "xmin must be a number, and is 'nan'"),
    "exchanged": (lambda text: text.replace("<xmax>20.5", "<xmax>1.5"), "object.bndbox 3, 2, 1.5, 19 has no area"),
    "outside": (
        lambda text: text.replace("<xmin>3.0", "<xmin>41").replace("<xmax>20.5", "<xmax>60"),
        "object.bndbox 41, 2, 60, 19 lies outside its image of 40 x 30 pixels",
    ),
    "many": (
        lambda text: text.replace("</annotation>", object_text(("cat", BOX)) * 999 + "</annotation>"),
        "an image has at most 999 objects, and this has 1,000",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_told_with_its_file_and_a_remedy(tmp_path: Path, kind: str) -> None:
    change, message = BROKEN[kind]
    path = add(tmp_path, NAME, change(annotation_text(NAME, object_text(("dog", BOX)))))
    with pytest.raises(DataFault, match=message) as fault:
        read(tmp_path)
    assert fault.value.message.startswith(str(path))
    assert fault.value.remedy is not None
    assert "again" in fault.value.remedy


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xml_trees, "MOST_BYTES", 100)
    add_image(tmp_path, 1, ("dog", BOX))
    with pytest.raises(DataFault, match="is larger than 100 bytes"):
        read(tmp_path)


@pytest.mark.parametrize("gone", ["Annotations", "JPEGImages"])
def test_a_missing_folder_is_told(tmp_path: Path, gone: str) -> None:
    add_image(tmp_path, 1, ("dog", BOX))
    (tmp_path / VOC2012 / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(DataFault, match=f"The folder .*{gone} is missing") as fault:
        read(tmp_path)
    assert "--data-root" in str(fault.value.remedy)


def test_a_folder_without_annotations_is_told(tmp_path: Path) -> None:
    add_image(tmp_path, 1, ("dog", BOX)).rename(tmp_path / "elsewhere.xml")
    with pytest.raises(DataFault, match=r"Annotations holds no file whose name ends in \.xml"):
        read(tmp_path)


def test_classes_are_the_alphabet_of_voc() -> None:
    assert len(CLASSES) == 20
    assert list(CLASSES) == sorted(CLASSES)
