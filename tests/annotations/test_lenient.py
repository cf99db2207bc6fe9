"""Files as other tools write them give the split and the scores of the same data written plainly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cissod_bench.annotations.file_names import ImageFolder
from cissod_bench.annotations.lenient import GREATEST_ID, id_number
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.errors import DataFault
from cissod_bench.files import json_objects as json_files
from cissod_bench.splitting.data_files import FILES

Content = dict[str, Any]
Change = Callable[[Content], Any]


def each(key: str, **values: Callable[[Any], Any]) -> Change:
    """Change some values of every record of an array."""

    def change(content: Content) -> None:
        for record in content[key]:
            for name, new in values.items():
                record[name] = new(record[name])

    return change


def both(*changes: Change) -> Change:
    def change(content: Content) -> None:
        for one in changes:
            one(content)

    return change


def ids(new: Callable[[int], Any]) -> Change:
    """Change the ids of images and the boxes' ids."""
    return both(each("images", id=new), each("annotations", id=new, image_id=new))


def with_root(content: Content) -> None:
    """Put a root category above the others, as Roboflow does; it is called like one of them."""
    for one in content["categories"]:
        one["supercategory"] = "heart"
    content["categories"].insert(0, {"id": 0, "name": "heart", "supercategory": "none"})


def crowds(value: Any) -> Change:
    return lambda content: [box.update(iscrowd=value) for box in content["annotations"]]


def some(content: Content) -> None:
    """Every other record only, as files that were merged have it."""
    for record in content["images"][1::2]:
        record["id"] = float(record["id"])
    for box in content["annotations"][::3]:
        box.update(image_id=str(box["image_id"]), iscrowd=None)


# name: (change of the files, what the summary says of train, whether the ids are numbered by their hash)
# ruff: noqa: E501 - a case is a row
CASES: dict[str, tuple[Change, str, bool]] = {
    "decimal ids": (both(ids(float), each("annotations", category_id=float), each("categories", id=float)), "written as 1.0", False),
    "decimal sizes": (each("images", width=float, height=float), "40 records with whole numbers written as 1.0", False),
    "crowd null": (crowds(None), "boxes with iscrowd null, read as 0", False),
    "crowd decimal": (crowds(0.0), "written as 1.0", False),
    "ids in text": (ids(str), "records with ids in text", False),
    "image ids in text": (both(each("images", id=str), each("annotations", image_id=str)), "records with ids in text", False),
    "some records": (some, "records with ids in text", False),
    "names as ids": (both(each("images", id="{:06}_cam".format), each("annotations", image_id="{:06}_cam".format)), "numbered by their hash", True),
    "digits as ids": (both(each("images", id="{:012}".format), each("annotations", image_id="{:012}".format)), "numbered by their hash", True),
    "128-bit ids": (ids(lambda number: 81563074854715480635242496994293325551 + 7919 * number), "beyond 62 bits", True),
    "64-bit ids": (ids(lambda number: 2**63 + number), "beyond 62 bits", True),
    "a root category": (with_root, "1 root category", False),
    "backslashes": (each("images", file_name=lambda name: name.replace("/", "\\")), "40 file names with backslashes", False),
    "names of another machine": (each("images", file_name="/media/u/tiny/images/{}".format), "40 absolute file names", False),
    "names of a Windows machine": (each("images", file_name="D:\\data\\tiny\\images\\{}".format), "40 absolute file names", False),
}  # fmt: skip


def plain(content: Content) -> None:
    """Write ids as the numbers they stand for."""
    for image in content["images"]:
        image["id"] = id_number(image["id"])
    for box in content["annotations"]:
        box["id"], box["image_id"] = id_number(box["id"]), id_number(box["image_id"])


def rewrite(root: Path, *changes: Change) -> None:
    for role in ("train", "val"):
        path = root / f"tiny/annotations/{role}.json"
        content = json.loads(path.read_bytes())
        for change in changes:
            change(content)
        path.write_text(json.dumps(content), encoding="utf-8")


def prepared(root: Path, name: str) -> None:
    """Lay the plain data out so that only how it is written differs."""
    rewrite(root, crowds(0))
    if name == "a root category":
        rewrite(root, lambda content: [one.update(supercategory="heart") for one in content["categories"]])
    if name == "backslashes":
        rewrite(root, each("images", file_name="sub/{}".format))
    if "machine" in name:  # the names go on behind the image folder
        text = (root / "tiny.toml").read_text(encoding="utf-8")
        (root / "tiny.toml").write_text(text.replace("images/train", "images").replace("images/val", "images"))
        for part in ("train", "val"):  # an image file belongs to one record of one part
            path = root / "tiny/annotations" / f"{part}.json"
            content = json.loads(path.read_bytes())
            each("images", file_name=(part + "/{}").format)(content)
            path.write_text(json.dumps(content), encoding="utf-8")


def drawn(call: Callable[..., Any], root: Path, work: Path) -> tuple[list[Content], str]:
    """Draw the split and return the content of its files without original ids, and the summary."""
    done = call("make-splits", "--task", root / "tiny.toml", "--data-root", root, "--work-dir", work)
    assert done.code == 0, done.err
    files = [json.loads((work / "splits/tiny/seed0" / name).read_bytes()) for name in FILES]
    for file in files:
        for image in file["images"]:
            image.pop("original_id", None)
    return files, done.out


def scores(call: Callable[..., Any], root: Path, work: Path, predictions: list[Content]) -> Content:
    path = work / "predictions.json"
    path.write_text(json.dumps(predictions), encoding="utf-8")
    split = work / "splits/tiny/seed0"
    done = call("evaluate", "--split", split, "--predictions", path, "--data-root", root, "--work-dir", work, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)  # type: ignore[no-any-return]


def found(root: Path) -> list[Content]:
    """Predictions for the val file as it is written: all its boxes, every third of another class."""
    content = json.loads((root / "tiny/annotations/val.json").read_bytes())
    kinds = [1, 2, 3, 4, 5]
    return [
        {
            "image_id": box["image_id"],
            "category_id": box["category_id"] if place % 3 else kinds[place % 5],
            "bbox": box["bbox"],
            "score": 0.9 - place / 1000,
        }
        for place, box in enumerate(content["annotations"])
    ]


@pytest.mark.parametrize("piece", [1 << 20, 400])
@pytest.mark.parametrize("name", CASES)
def test_a_file_of_another_tool_gives_the_plain_split_and_scores(
    name: str, piece: int, tiny_coco: Path, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_files, "PIECE_BYTES", piece)
    change, told, hashed = CASES[name]
    prepared(tiny_coco, name)
    before = {path: path.read_bytes() for path in (tiny_coco / "tiny/annotations").iterdir()}
    if hashed:
        rewrite(tiny_coco, change, plain)
    wanted, summary = drawn(call, tiny_coco, tmp_path / "plain")
    points = scores(call, tiny_coco, tmp_path / "plain", found(tiny_coco))
    assert "normalised" not in summary
    for path, data in before.items():
        path.write_bytes(data)
    rewrite(tiny_coco, change)
    files, summary = drawn(call, tiny_coco, tmp_path / "odd")
    assert files == wanted
    assert "normalised in train: " in summary
    assert told in summary
    assert scores(call, tiny_coco, tmp_path / "odd", found(tiny_coco)) == points
    assert 0 < points["all"] < 100
    split = tmp_path / "odd/splits/tiny/seed0"
    assert call("splits", "verify", split, "--work-dir", tmp_path / "odd").code == 0
    assert call("splits", "show", split, "--work-dir", tmp_path / "odd").code == 0


def test_an_id_has_one_number_whatever_else_is_in_the_file() -> None:
    """These numbers are in kept splits and predictions: they must never change."""
    known = [
        ("000001_cam", 5273851205903925),
        ("", None),
        ("0", 0),
        ("-7", -7),
        ("12", 12),
        ("012", 6734875225719431),
        ("1.0", 7353444353889610),
        (str(2**70), 6080429151663078),
        (2**70, 6080429151663078),
        (7, 7),
        (7.0, 7),
        (7.5, None),
        (1e20, None),
        (GREATEST_ID, GREATEST_ID),
        (GREATEST_ID + 1, 3472214372113040),
    ]
    assert [id_number(value) for value, _ in known] == [number for _, number in known]
    assert [id_number(odd) for odd in (True, None, [1], {"a": 1}, 10**400, float("inf"), float("nan"))] == [None] * 7
    assert id_number(str(2**70)) == id_number(2**70)
    assert all(0 <= (id_number(f"image {number}") or -1) < 2**53 for number in range(1000))


def test_an_id_that_is_numbered_by_its_hash_stays_in_the_split(
    tiny_coco: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    rewrite(tiny_coco, *CASES["names as ids"][:1])
    call("make-splits", "--task", tiny_coco / "tiny.toml", "--data-root", tiny_coco, "--work-dir", tmp_path)
    files = [json.loads((tmp_path / "splits/tiny/seed0" / name).read_bytes()) for name in FILES]
    images = [image for file in files for image in file["images"]]
    assert all(image["id"] == id_number(image["original_id"]) for image in images)
    assert {image["original_id"] for image in images} == {f"{number:06}_cam" for number in range(1, 41)}


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["annotations"][0].update(category_id=0),
        lambda content: content["categories"][0].update(supercategory="heart"),
        lambda content: [one.pop("supercategory") for one in content["categories"]],
        lambda content: content["categories"][0].update(name="arrow"),
    ],
    ids=["it has a box", "it is below another", "it is nobody's root", "it bears another class's name"],
)
def test_two_classes_of_one_name_stay_refused(
    change: Change, tiny_coco: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    rewrite(tiny_coco, with_root, change)
    done = call("make-splits", "--task", tiny_coco / "tiny.toml", "--data-root", tiny_coco, "--work-dir", tmp_path)
    assert done.code == 3
    assert "as is categories[0].name; it must differ" in done.err


def named(tmp_path: Path, *names: str) -> list[str]:
    """Return how an annotation file's names are read below the folder data/images."""
    images = [{"id": number, "file_name": name, "width": 9, "height": 9} for number, name in enumerate(names)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    folder = ImageFolder(tmp_path / "data/images", "data/images")
    with read_annotations(path, folder=folder) as data:
        return data.file_names


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["a\\b.jpg", "c.jpg"], ["a/b.jpg", "c.jpg"]),
        ([".\\b.jpg"], ["./b.jpg"]),
        (["/x/data/images/b.jpg", "/x/data/images/c/b.jpg"], ["b.jpg", "c/b.jpg"]),
        (["/x/images/b.jpg"], ["b.jpg"]),
        (["/images/x/data/images/b.jpg"], ["b.jpg"]),
        (["C:\\x\\data\\images\\b.jpg"], ["b.jpg"]),
        (["c:/x/images/b.jpg"], ["b.jpg"]),
        (["\\\\host\\images\\b.jpg"], ["b.jpg"]),
        (["/x/images/a.jpg", "/y/images/b.jpg"], ["a.jpg", "b.jpg"]),
        (["a\u00a0b.jpg", "a\u202fb.jpg", "\u200b.jpg"], ["a\u00a0b.jpg", "a\u202fb.jpg", "\u200b.jpg"]),
    ],
)
def test_names_are_read_below_the_image_folder(names: list[str], wanted: list[str], tmp_path: Path) -> None:
    assert named(tmp_path, *names) == wanted


def test_the_image_folders_own_path_is_taken_off(tmp_path: Path) -> None:
    folder = tmp_path / "data/images/images"
    folder.mkdir(parents=True)
    assert named(tmp_path, str(folder / "a.jpg"), str(folder.parent / "b.jpg")) == ["images/a.jpg", "b.jpg"]


def test_files_that_are_there_decide_where_an_absolute_name_goes_on(tmp_path: Path) -> None:
    (tmp_path / "data/images/images").mkdir(parents=True)
    (tmp_path / "data/images/images/a.jpg").write_bytes(b"")
    assert named(tmp_path, "/x/images/images/a.jpg", "/x/images/images/b.jpg") == ["images/a.jpg", "images/b.jpg"]


@pytest.mark.skipif(os.sep != "/", reason="a backslash is no letter of a file's name here")
def test_a_name_with_backslashes_stays_where_a_file_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/images/a\\1.jpg").write_bytes(b"")
    assert named(tmp_path, "a\\1.jpg", "a\\2.jpg") == ["a\\1.jpg", "a\\2.jpg"]


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "/x/data/images/../../a.jpg", "..\\a.jpg", "a\\..\\..\\b.jpg", "C:\\a.jpg", "/x/images/", "/images",
     "/x/images/a\x1b.jpg", "/x/images/a\0", "a\nb", "a\u202eb", "", "/x/images//../a"],
)  # fmt: skip
def test_names_that_leave_the_folder_or_steer_a_terminal_stay_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataFault, match=r"a\.json: images\[0\]\.file_name must be"):
        named(tmp_path, name)


def test_a_list_of_images_is_taken_for_d_u(tiny_coco: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    """Without annotations, as MS-COCO publishes its unlabelled images, and without classes."""
    files, _ = drawn(call, tiny_coco, tmp_path / "drawn")
    given = {"labelled": files[0], "unlabelled": files[1]}
    hashes = []
    for number, absent in enumerate(((), ("annotations",), ("annotations", "categories"))):
        for name, content in given.items():
            less = {key: value for key, value in content.items() if name == "labelled" or key not in absent}
            (tmp_path / f"{name}.json").write_text(json.dumps(less), encoding="utf-8")
        named_files = [word for name in given for word in (f"--{name}", tmp_path / f"{name}.json")]
        places = ("--data-root", tiny_coco, "--work-dir", tmp_path / f"work{number}")
        done = call("splits", "import", "--task", tiny_coco / "tiny.toml", *named_files, *places)
        assert done.code == 0, done.err
        assert ("normalised in unlabelled: 1 list of images" in done.out) == bool(absent)
        manifest = json.loads((tmp_path / f"work{number}/splits/tiny/seed0/manifest.json").read_bytes())
        hashes.append(manifest["split_sha256"])
    assert len(set(hashes)) == 1


@pytest.mark.parametrize("role", ["labelled", "hidden", "train"])
def test_other_files_must_have_annotations(
    role: str, tiny_coco: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    files, _ = drawn(call, tiny_coco, tmp_path / "drawn")
    given = dict(zip(("labelled", "unlabelled", "hidden"), files, strict=True))
    path = tiny_coco / "tiny/annotations/train.json"
    given.get(role, {}).pop("annotations", None)
    if role == "train":
        content = json.loads(path.read_bytes())
        del content["annotations"]
        path.write_text(json.dumps(content), encoding="utf-8")
    for name, content in given.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    named_files = [word for name in given for word in (f"--{name}", tmp_path / f"{name}.json")]
    places = ("--data-root", tiny_coco, "--work-dir", tmp_path / "work")
    done = call("splits", "import", "--task", tiny_coco / "tiny.toml", *named_files, *places)
    assert done.code == 3
    assert f"{role}.json: the key 'annotations' is missing" in done.err


def test_a_name_that_is_no_image_is_told_as_one(tiny_coco: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    rewrite(tiny_coco, CASES["names as ids"][0])
    drawn(call, tiny_coco, tmp_path)
    entry = {"image_id": "none_cam", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    (tmp_path / "predictions.json").write_text(json.dumps([entry]), encoding="utf-8")
    split, places = tmp_path / "splits/tiny/seed0", ("--data-root", tiny_coco, "--work-dir", tmp_path)
    done = call("evaluate", "--split", split, "--predictions", tmp_path / "predictions.json", *places)
    assert done.code == 3
    assert f"{id_number('none_cam')} (if the file has a name there: its hash) is not in the validation file" in done.err


def test_data_check_says_what_was_normalised(tiny_coco: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    rewrite(tiny_coco, CASES["decimal sizes"][0], CASES["crowd null"][0])
    places = ("--data-root", tiny_coco, "--work-dir", tmp_path)
    done = call("data", "check", "--task", tiny_coco / "tiny.toml", *places)
    assert done.code == 0, done.err
    assert "normalised:" in done.out
    shown = call("data", "check", "--task", tiny_coco / "tiny.toml", *places, "--json")
    assert json.loads(shown.out)[0]["checks"][0]["counts"]["decimals"] == 40
