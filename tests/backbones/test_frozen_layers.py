"""No layer is frozen that was never trained, and whatever a message advises trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectors import tiny_detector
from score_records import finished
from tiny import tiny_plan, tiny_training
from weights import below, caffe, neither, saved, torchvision, with_file

from cissod_bench.backbones.pretrained import backbone_of, tell_backbone
from cissod_bench.contract.changes import with_changes
from cissod_bench.contract.frozen_layers import FROM_SCRATCH
from cissod_bench.contract.presets import MINI, SMOKE
from cissod_bench.contract.settings import FULL, Settings
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.records.record import RunRecord
from cissod_bench.running.assembly import prepare

SET = ("depth=18", "norm=frozen-bn", "frozen_stages=1")  # on the smoke preset: frozen as `full` is


@pytest.mark.parametrize(
    ("base", "changes", "frozen"),
    [
        (FULL, ["pretrained="], "norm=frozen-bn and frozen_stages=1"),
        (FULL, ["pretrained=", "norm=gn"], "frozen_stages=1"),
        (FULL, ["pretrained=", "norm=gn", "frozen_stages=0"], "frozen_stages=0"),
        (FULL, ["pretrained=", "frozen_stages=-1"], "norm=frozen-bn"),
        (MINI, ["norm=frozen-bn"], "norm=frozen-bn"),
        (MINI, ["frozen_stages=2"], "frozen_stages=2"),
        (SMOKE, ["frozen_stages=0"], "frozen_stages=0"),
    ],
)
def test_settings_that_would_freeze_random_layers_are_refused(base: Settings, changes: list[str], frozen: str) -> None:
    base = replace(base, iterations=20)
    with pytest.raises(UsageFault, match=f"Without a pretrained backbone {frozen} would freeze") as fault:
        with_changes(base, changes)
    assert FROM_SCRATCH in str(fault.value.remedy)
    ways = [word for word in FROM_SCRATCH.split() if word != "--set"]
    assert with_changes(base, [*changes, *ways]).frozen_stages == -1


@pytest.mark.parametrize(
    ("base", "kind", "fitting"),
    [(FULL, "scratch", "norm=gn"), (MINI, "caffe", "norm=frozen-bn"), (MINI, "torchvision", "norm=frozen-bn")],
)
def test_a_kind_that_does_not_go_with_the_norm_is_refused(base: Settings, kind: str, fitting: str) -> None:
    with pytest.raises(UsageFault, match=f"pretrained_kind={kind} needs {fitting}") as fault:
        with_changes(replace(base, iterations=20), [f"pretrained_kind={kind}"])
    assert f"--set {fitting}" in str(fault.value.remedy)


def test_no_layer_that_is_frozen_is_random(tmp_path: Path) -> None:
    state = caffe()
    detector = tiny_detector(settings=with_file(saved(tmp_path, state)))
    frozen = [(name, value) for name, value in detector.student.named_parameters() if not value.requires_grad]
    assert frozen
    for name, value in frozen:
        assert torch.equal(value, state[name.removeprefix("backbone.")]), name


def trained(work: Path, *changes: str) -> RunRecord:
    """Five iterations; returns a record that was told of the backbone."""
    training = tiny_training(work, "soft-teacher", "iterations=5", "generations=1", *changes)
    losses: list[float] = []
    training.log = lambda line: losses.append(line["loss"])
    training.run()
    assert len(losses) == 5
    assert torch.isfinite(torch.tensor(losses)).all()
    record = RunRecord(
        task="tiny", method="soft-teacher", preset="smoke", profile="default", split_seed=0, seed=0, split_sha256="",
        status="running",
    )  # fmt: skip
    tell_backbone(record, training.detector.backbone_record, lambda text: None)
    return record


REMEDIES: dict[str, tuple[Callable[[], Any] | None, tuple[str, ...]]] = {
    "a caffe file": (caffe, SET),
    "a torchvision file": (torchvision, SET),
    "a detector's file": (lambda: {"state_dict": below("backbone.", torchvision())}, SET),
    "the settings that a ResNet-50 needs": (lambda: caffe(50), (*SET, "depth=50")),
    "the kind said": (neither, (*SET, "pretrained_kind=caffe")),
    "from scratch": (None, (*SET, *FROM_SCRATCH.replace("--set ", "").split())),
}


@pytest.mark.parametrize(
    ("named", "path", "recorded"),
    [
        ("package:efficientnet-lite2", "/home/ann/site-packages/models/lite2.pth", "lite2.pth"),
        ("open-mmlab://detectron2/resnet50_caffe", "/home/ann/.cache/torch/resnet50.pth", "resnet50.pth"),
        ("https://example.org/a/net.pth", "/home/ann/.cache/torch/net.pth", "net.pth"),
        ("/data/net.pth", "/data/net.pth", "/data/net.pth"),
        ("net.pth", "net.pth", "net.pth"),
    ],
)
def test_a_record_names_a_folder_only_if_the_user_did(named: str, path: str, recorded: str) -> None:
    record, said = finished(settings={"pretrained": named}), list[str]()
    known = {"file": path, "kind": "timm", "words": "a net", "sha256": "0" * 64}
    tell_backbone(record, known, said.append)
    assert record.backbone == {**known, "file": recorded}
    assert said == [f"Backbone: {recorded}, a net."]


@pytest.mark.slow
@pytest.mark.parametrize("remedy", list(REMEDIES))
def test_every_remedy_trains(tmp_path: Path, remedy: str) -> None:
    content, changes = REMEDIES[remedy]
    named = () if content is None else (f"pretrained={saved(tmp_path, content())}",)
    record = trained(tmp_path, *named, *changes)
    assert bool(record.backbone) is (content is not None)
    kind = "torchvision" if "torchvision" in remedy or "detector" in remedy else "caffe"
    if content is not None:
        assert record.backbone["kind"] == kind
        assert record.backbone["file"] == str(tmp_path / "backbone.pth")
        assert len(record.backbone["sha256"]) == 64
    assert record.departures == ({"backbone_kind": ["caffe", "torchvision"]} if kind == "torchvision" else {})


@pytest.mark.slow
def test_our_own_checkpoint_is_a_backbone(tmp_path: Path) -> None:
    first = tiny_training(tmp_path, "soft-teacher", "iterations=5", "generations=1")
    first.run()
    own = saved(tmp_path, torch.load(first.file, weights_only=True), "own.pth")
    again = trained(tmp_path / "again", f"pretrained={own}")
    assert (again.backbone["kind"], again.backbone["part"]) == ("scratch", "teacher.backbone.")
    assert again.departures == {"backbone_kind": ["caffe", "scratch"]}
    settings = tiny_plan(tmp_path / "again", "soft-teacher", f"pretrained={own}").settings
    with pytest.raises(DataFault, match="norm=gn; the settings ask for norm=frozen-bn"):
        backbone_of(replace(settings, norm="frozen-bn", frozen_stages=1))


@pytest.mark.slow
def test_a_run_does_not_continue_with_another_backbone(tmp_path: Path) -> None:
    path = saved(tmp_path, caffe())
    plan = tiny_plan(tmp_path, "soft-teacher", f"pretrained={path}", *SET, "iterations=4")
    plan.folder.mkdir(parents=True)
    prepare(plan, torch.device("cpu")).save()
    assert prepare(plan, torch.device("cpu")).resume()
    saved(tmp_path, torchvision())
    with pytest.raises(UsageFault, match="was written with another pretrained backbone"):
        prepare(plan, torch.device("cpu")).resume()
