"""Large files of a split are read once, by whoever comes first, and mapped by all; small ones are read by each."""

from __future__ import annotations

import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_plan

from cissod_bench.annotations.reading import read_annotations
from cissod_bench.errors import DataFault
from cissod_bench.loading import shared_columns
from cissod_bench.loading.shared_columns import FOLDER, key_of, read_ahead, shared_source
from cissod_bench.loading.sources import COLUMNS, Source, source_of
from cissod_bench.running import assembly
from cissod_bench.running.plan import Plan
from cissod_bench.splitting.data_files import HIDDEN, LABELLED, UNLABELLED
from cissod_bench.training.judging import HiddenBoxes, hidden_source, read_hidden


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return tiny_plan(tmp_path_factory.mktemp("shared"), "oracle")


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """Every file counts as large."""
    monkeypatch.setattr(shared_columns, "LEAST_BYTES", 0)


def equal(one: Source, other: Source) -> None:
    for name in COLUMNS:
        ours, theirs = (getattr(source, name) for source in (one, other))
        if name == "names":
            ours, theirs = (np.frombuffer(bytes(names), np.uint8) for names in (ours, theirs))
        np.testing.assert_array_equal(ours, theirs, strict=True)
    assert (one.folders, one.readings, one.parents) == (other.folders, other.readings, other.parents)


def base_of(array: np.ndarray) -> object:  # type: ignore[type-arg]
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base  # type: ignore[assignment]
    return array


def test_small_files_are_read_by_each(plan: Plan) -> None:
    assembly.sources(plan)
    assert not (plan.split / FOLDER).exists()


def test_mapped_columns_are_those_of_the_file_and_the_text_is_read_once(
    plan: Plan, all_large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shared_columns, "LEAST_BYTES", 1 << 40)
        plain = assembly.sources(plan)
    for one, other in zip(assembly.sources(plan), plain, strict=True):
        equal(one, other)
    names = sorted(path.name.partition("-")[0] for path in (plan.split / FOLDER).iterdir() if path.is_dir())
    assert names == ["hidden", "labelled", "unlabelled"]

    def unread(*values: object, **named: object) -> None:
        raise AssertionError("the text is read again")

    monkeypatch.setattr(assembly, "read_annotations", unread)
    mapped = assembly._part(plan, HIDDEN)
    again = assembly.sources(plan)
    equal(again[0], plain[0])
    assert mapped.name(3) == mapped.names_of(np.arange(2, 5))[1]
    assert mapped.names_of(np.array([3, 1])) == [mapped.name(3), mapped.name(1)]
    assert isinstance(base_of(mapped.image_ids), np.ndarray), "what is smaller than a page is not worth a mapping"


def test_columns_are_pages_of_a_file(plan: Plan, all_large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_columns, "_PAGE", 0)
    source = assembly._part(plan, HIDDEN)
    for name in ("image_ids", "boxes", "labels", "names"):
        assert isinstance(base_of(getattr(source, name)), mmap.mmap), name
    labels = source.labels.copy()
    source.labels[:] = 0  # a process that writes has its own copy
    np.testing.assert_array_equal(assembly._part(plan, HIDDEN).labels, labels)


def test_other_content_and_another_way_to_read_have_columns_of_their_own(plan: Plan, all_large: None) -> None:
    path, first = plan.split / LABELLED, assembly._part(plan, LABELLED)
    other = shared_source(path, key_of("part", "of another hash"), lambda: first.without_boxes())
    assert len(other.boxes) == 0 < len(first.boxes)
    assert len(assembly._part(plan, LABELLED).boxes) == len(first.boxes)


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    plan: Plan, all_large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_columns, "FOLDER", f"{LABELLED}/below a file")
    equal(assembly._part(plan, LABELLED), assembly._part(replace(plan, split=plan.split), LABELLED))


def test_a_missing_image_folder_is_told_at_every_start(plan: Plan, all_large: None, tmp_path: Path) -> None:
    assembly._part(plan, UNLABELLED)
    moved = replace(plan, images=dict.fromkeys(plan.images, tmp_path / "moved"))
    with pytest.raises(DataFault, match=r"image folder .* is missing"):
        assembly._part(moved, UNLABELLED)


def hidden_columns(hidden: HiddenBoxes | None) -> list[np.ndarray]:  # type: ignore[type-arg]
    assert hidden is not None
    return [hidden.images, hidden.ends, hidden.boxes, hidden.labels, hidden.crowd]


def test_hidden_boxes_are_shared_too(plan: Plan, all_large: None) -> None:
    path = plan.split / HIDDEN
    plain = read_hidden(path, plan.classes, plan.naming)
    for _ in range(2):
        shared = read_hidden(path, plan.classes, plan.naming, plan.manifest.files[HIDDEN])
        for one, other in zip(hidden_columns(plain), hidden_columns(shared), strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
    with pytest.warns(UserWarning, match="has other classes"):
        assert read_hidden(path, plan.classes[::-1], plan.naming, plan.manifest.files[HIDDEN]) is None


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_ranks_begin_with_different_files_and_have_the_same_at_the_end(
    rank: int, plan: Plan, all_large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    part = assembly._part

    def noted(plan: Plan, name: str, at_hand: bool) -> Source:
        order.append(name)
        return part(plan, name, at_hand)

    monkeypatch.setattr(assembly, "_part", noted)
    monkeypatch.setattr("cissod_bench.distributed.rank", lambda: rank)
    labelled, unlabelled = assembly._parts(plan)
    assert order == ([UNLABELLED, LABELLED] if rank == 1 else [LABELLED, UNLABELLED])
    assert (len(labelled), len(unlabelled)) == tuple(plan.manifest.counts[name] for name in ("labelled", "unlabelled"))


def test_hidden_boxes_are_read_ahead_by_a_process_of_their_own(plan: Plan, all_large: None) -> None:
    path = plan.split / HIDDEN
    before = {place for place in (plan.split / FOLDER).iterdir() if place.is_dir()}
    reader = read_ahead(path, lambda: hidden_source(path, plan.classes, "objects365", "a hash"))
    assert reader is not None
    reader.join(60)
    assert reader.exitcode == 0
    (written,) = {place for place in (plan.split / FOLDER).iterdir() if place.is_dir()} - before
    assert written.name == f"hidden-{key_of('hidden', 'a hash', 'objects365', [], plan.classes)}"


def test_nothing_is_read_ahead_of_small_and_missing_files_and_a_fault_is_not_told(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = plan.split / HIDDEN
    assert read_ahead(path, list) is None
    monkeypatch.setattr(shared_columns, "LEAST_BYTES", 0)
    assert read_ahead(tmp_path / "none.json", list) is None
    reader = read_ahead(path, lambda: hidden_source(path, plan.classes[::-1], plan.naming, "another"))
    assert reader is not None
    reader.join(60)
    assert (reader.exitcode, capfd.readouterr()) == (0, ("", ""))


def test_reading_without_records_gives_the_same_columns(plan: Plan) -> None:
    path = plan.split / LABELLED
    with read_annotations(path) as whole, read_annotations(path, records=False) as lean:
        equal(source_of(lean, plan.images, "train"), source_of(whole, plan.images, "train"))
        assert (lean.sha256, len(lean.box_ids), len(lean.box_spans.offsets)) == ("", 0, 0)
        assert lean.classes == whole.classes
