"""Mutated real annotation files and manifests: a correct result, or a fault that names the file and the place.

A few real records are mutated thousands of times, each case by its own seed. What is correct is said by a plain model
of the rules over what the json module reads. ``CISSOD_FUZZ_CASES=100000`` runs more cases than usual, and
``CISSOD_FUZZ_FIRST=3000`` others.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from annotation_rules import RefusedError, model
from mutations import mutated, packed, unpacked

from cissod_bench.annotations.naming import Naming
from cissod_bench.annotations.reading import Annotations, read_annotations
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.cli.split_summary import summary
from cissod_bench.errors import BenchError, DataFault
from cissod_bench.files import json_objects as json_files
from cissod_bench.split_folders.ensure import draw_options, ensure_split
from cissod_bench.splitting.data_files import FILES
from cissod_bench.splitting.manifest import read_manifest, verify

CASES = int(os.environ.get("CISSOD_FUZZ_CASES", "3000"))
FIRST = int(os.environ.get("CISSOD_FUZZ_FIRST", "0"))
MOST_SECONDS = 5.0  # of a case; the usual one takes a millisecond
PLACE = re.compile(
    r"byte \d+|line \d+|(images|annotations|categories)(\[[\d*]+\]|: | must hold)|the key '|'\w+' must be|broken gzip"
    r"|is empty|byte order mark"
)


def facts(data: Annotations) -> dict[str, Any]:
    """Return what the program read, laid out as the model does."""
    ids = data.box_ids.tolist()
    return {
        "image_ids": data.image_ids.tolist(),
        "names": data.file_names,
        "sizes": [list(size) for size in zip(data.widths.tolist(), data.heights.tolist(), strict=True)],
        "classes": list(data.classes),
        "boxes": dict(zip(ids, data.boxes.tolist(), strict=True)),
        "kinds": dict(zip(ids, (data.classes[row] for row in data.box_class), strict=True)),
        "policy": data.policy.counts(),
    }


@contextmanager
def no_hang(case: str) -> Iterator[None]:
    """Fail when the block takes longer than any case may."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{case} hangs")

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    started = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert time.monotonic() - started < MOST_SECONDS, f"{case} took too long"


def small(content: dict[str, Any], images: int) -> bytes:
    """Return the first images of a file with their boxes and classes."""
    records = content["images"][:images]
    ids = {image["id"] for image in records}
    boxes = [box for box in content["annotations"] if box["image_id"] in ids][:40]
    kinds = {box["category_id"] for box in boxes}
    for box in boxes:
        box.pop("segmentation", None)  # as much text as all the rest, and never read
    classes = [kind for kind in content["categories"] if kind["id"] in kinds]
    extras = {"info": content["info"], "licenses": content["licenses"][:1]}
    return json.dumps({**extras, "images": records, "annotations": boxes, "categories": classes}).encode()


@pytest.fixture(scope="module")
def real(test_data: Path) -> dict[str, bytes]:
    """Small valid files of real records: naming -> text."""
    coco = json.loads((test_data / "coco_mini/instances_train.json").read_bytes())
    lvis = json.loads((test_data / "lvis/lvis_val_100.json").read_bytes())
    return {"file_name": small(coco, 6), "coco_url": small(lvis, 3)}


def is_refused(text: bytes, naming: Naming) -> bool:
    """Return whether the model refuses a file, or may: of two equal keys the first is checked as well as the last."""
    try:
        return bool(model(text, naming)["twice"])
    except RefusedError:
        return True


def check_read(path: Path, naming: Naming) -> str:
    """Read a file and compare with the model; return how it ended."""
    text = unpacked(path.read_bytes())
    try:
        with read_annotations(path, naming=naming) as data:
            found = facts(data)
    except DataFault as fault:
        message = str(fault)
        assert str(path) in message, message
        assert PLACE.search(message.replace(str(path), "")), message
        assert text is None or is_refused(text, naming), message
        return "refused"
    assert text is not None, "a broken gzip file was read"
    wanted = model(text, naming)
    del wanted["twice"]
    boxes, expected = found.pop("boxes"), wanted.pop("boxes")
    assert found == wanted
    assert boxes.keys() == expected.keys()
    assert all(abs(a - b) <= 1e-4 for key in boxes for a, b in zip(boxes[key], expected[key], strict=True))
    return "read"


def each_case(title: str, count: int, check: Callable[[random.Random], str]) -> Counter[str]:
    """Run numbered cases and count how they ended; one that fails is named."""
    ended = Counter[str]()
    for case in range(FIRST, FIRST + count):
        with no_hang(f"{title}, case {case}"):
            try:
                ended[check(random.Random(f"{title}/{case}"))] += 1
            except Exception as error:
                raise AssertionError(f"{title}, case {case}: {type(error).__name__}: {error!s:.3000}") from error
    return ended


@pytest.mark.slow
@pytest.mark.parametrize("naming", ["file_name", "coco_url"])
def test_a_mutated_file_is_read_right_or_refused_with_a_place(
    naming: Naming, real: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"

    def check(dice: random.Random) -> str:
        text = mutated(real[naming], dice)
        path.write_bytes(packed(text, dice) if dice.random() < 0.1 else text)
        monkeypatch.setattr(json_files, "PIECE_BYTES", dice.choice((1 << 20, 1 << 20, 3000, 300, 10)))
        return check_read(path, naming)

    ended = each_case(naming, CASES // 2, check)
    assert min(ended["read"], ended["refused"]) > 0.1 * CASES // 2, ended  # both are met, or the cases say little


TASK = """
title = "Fuzzed"
minority = ["person"]
labelled_percent = 20
min_instances = 1
train = {annotations = "train.json", images = "train"}
val = {annotations = "val.json", images = "val"}
"""


def left_below(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


@pytest.mark.slow
def test_make_splits_writes_a_sound_split_or_nothing(real: dict[str, bytes], tmp_path: Path) -> None:
    text, folder = real["file_name"], tmp_path / "work/splits/fuzzed/seed0"
    (tmp_path / "fuzzed.toml").write_text(TASK, encoding="utf-8")
    (tmp_path / "val.json").write_bytes(text)
    task = find_task(str(tmp_path / "fuzzed.toml"))

    def check(dice: random.Random) -> str:
        (tmp_path / "train.json").write_bytes(mutated(text, dice))
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        options = draw_options(task, dm_minority=dice.choice(("drop", "ignore")), unlabelled_percent=100.0)
        try:
            drawn = ensure_split(task, tmp_path, tmp_path / "work", options)
        except BenchError:
            assert left_below(tmp_path / "work") in ([], ["splits/fuzzed/.seed0.lock"])
            return "refused"
        assert left_below(folder) == sorted([*FILES, "manifest.json"])
        document = json.loads((folder / "manifest.json").read_bytes())
        assert verify(folder).document == document == drawn.manifest.document
        assert verify(folder) == drawn.manifest
        assert summary(drawn)
        check_split(folder, model((tmp_path / "train.json").read_bytes(), "file_name"))
        return "drawn"

    ended = each_case("make-splits", CASES // 10, check)
    assert min(ended["drawn"], ended["refused"]) > 0.1 * CASES // 10, ended


def check_split(folder: Path, source: dict[str, Any]) -> None:
    """Check the three files against what the source holds."""
    labelled, unlabelled, hidden = (json.loads((folder / name).read_bytes()) for name in FILES)
    parts = [[image["id"] for image in file["images"]] for file in (labelled, unlabelled)]
    assert sorted(parts[0] + parts[1]) == sorted(source["image_ids"])
    assert unlabelled["annotations"] == []
    shown, unseen = ({box["id"]: box["bbox"] for box in file["annotations"]} for file in (labelled, hidden))
    assert not shown.keys() & unseen.keys()
    for number, box in {**shown, **unseen}.items():
        assert all(abs(a - b) <= 1e-4 for a, b in zip(box, source["boxes"][number], strict=True))


@pytest.fixture
def split_dir(real: dict[str, bytes], tmp_path: Path) -> Path:
    (tmp_path / "fuzzed.toml").write_text(TASK, encoding="utf-8")
    for role in ("train", "val"):
        (tmp_path / f"{role}.json").write_bytes(real["file_name"])
    task = find_task(str(tmp_path / "fuzzed.toml"))
    return ensure_split(task, tmp_path, tmp_path / "work", draw_options(task)).folder


@pytest.mark.slow
def test_a_mutated_manifest_is_read_whole_or_refused(split_dir: Path, tmp_path: Path) -> None:
    """What is read has every key and type that the program relies on: its summary can be printed."""
    path, task = split_dir / "manifest.json", find_task(str(tmp_path / "fuzzed.toml"))
    text = path.read_bytes()

    def check(dice: random.Random) -> str:
        path.write_bytes(mutated(text, dice))
        try:
            manifest = read_manifest(split_dir)
            drawn = ensure_split(task, tmp_path, tmp_path / "work", draw_options(task))
        except BenchError as fault:
            return "refused" if str(split_dir) in str(fault) else f"refused without its name: {fault}"
        assert manifest.document == json.loads(path.read_bytes())
        assert summary(drawn)
        return "read"

    ended = each_case("manifest", CASES // 3, check)
    assert ended.keys() == {"read", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_mutated_file_of_a_split_is_noticed(name: str, split_dir: Path) -> None:
    path = split_dir / name
    text = path.read_bytes()

    def check(dice: random.Random) -> str:
        changed = mutated(text, dice)
        path.write_bytes(changed)
        if changed == text:
            verify(split_dir)
            return "same"
        with pytest.raises(DataFault, match=re.escape(f"{path} has been changed")):
            verify(split_dir)
        return "noticed"

    assert each_case(name, CASES // 30, check)["noticed"] > 0.5 * CASES // 30
