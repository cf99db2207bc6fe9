"""Exported detectors find what the run's own finds: in stock mmdet, by TorchScript, by onnxruntime."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm_files
import torch
from commands import Called
from exported_runs import own_found, with_method
from used_runs import used_run

from cissod_bench.catalogue import load_method
from cissod_bench.cli.common import Output
from cissod_bench.cli.export import _tell
from cissod_bench.contract.parts import Parts
from cissod_bench.contract.stock import Stock
from cissod_bench.errors import EnvironmentFault, UsageFault
from cissod_bench.records import run_folder as runs
from cissod_bench.using import agreement
from cissod_bench.using.agreement import columns_of, compared, stock_mmdet
from cissod_bench.using.exchange_files import needed
from cissod_bench.using.exporting import Exported, Format, export
from cissod_bench.using.loaded import LoadedRun, load_run
from cissod_bench.using.mmdet_files import write_mmdet
from cissod_bench.using.photographs import Photographs, photographs
from cissod_bench.using.plain import stock_model
from cissod_bench.using.stock import stock_of

METHODS = ("soft-teacher", "ours", "eqlv2", "c2am", "defrcn")
PACKAGES = {"onnx": ("onnx", "onnxruntime"), "safetensors": ("safetensors",)}


_GONE = {form: any(importlib.util.find_spec(name) is None for name in names) for form, names in PACKAGES.items()}
_SKIPS = {
    form: pytest.mark.skipif(gone, reason=f"{' or '.join(PACKAGES[form])} is not installed")
    for form, gone in _GONE.items()
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    root = tmp_path_factory.mktemp("exported")
    plan = used_run(root)
    state = torch.load(plan.folder / runs.CHECKPOINT, weights_only=True)
    state["teacher"]["roi_head.bbox_head.fc_cls.weight"] *= 100.0  # scores as of a longer training, far apart
    torch.save(state, plan.folder / runs.CHECKPOINT)
    return load_run(plan.folder, plan.task, plan.method, data_root=root / "data", work_dir=root / "work")


@pytest.fixture(scope="module")
def images(run: LoadedRun) -> Photographs:
    return photographs(str(run.plan.images["val"]), run.reading, most=3)


def in_mmdet(folder: Path, run: LoadedRun, images: Photographs) -> list[Any]:
    """What mmdet finds with an exported detector, in this process; only a slow test takes one of its own for each."""
    from mmdet.apis import inference_detector, init_detector

    write_mmdet(folder, stock_of(run), run.plan.settings, run.classes, run.reading, "Test")
    detector = init_detector(str(folder / "detector.py"), str(folder / "detector.pth"), device="cpu")
    assert list(detector.dataset_meta["classes"]) == list(run.classes)
    state = torch.load(folder / "detector.pth", weights_only=True)["state_dict"]
    assert detector.state_dict().keys() == state.keys()
    files = [str(images.source.file(row)) for row in range(len(images.source))]
    found = [one.pred_instances for one in inference_detector(detector, files)]
    return [columns_of(one.bboxes.numpy(), one.labels.numpy(), one.scores.numpy()) for one in found]


@pytest.mark.parametrize("method", METHODS)
def test_stock_mmdet_finds_what_the_method_finds(
    run: LoadedRun, images: Photographs, tmp_path: Path, method: str
) -> None:
    own = with_method(run, method, nms_iou=0.9)
    near = compared(own_found(own, images), in_mmdet(tmp_path, own, images))
    assert near.boxes > 20
    assert near.holds, near.words


def test_defrcn_in_its_first_stage_knows_the_base_classes_alone(
    run: LoadedRun, images: Photographs, tmp_path: Path
) -> None:
    own = with_method(run, "defrcn", stage=0)
    found = in_mmdet(tmp_path, own, images)
    assert compared(own_found(own, images), found).holds
    base = own.detector.parts.base  # type: ignore[union-attr]
    assert {label for _, labels, _ in found for label in labels.tolist()} <= set(base)


@pytest.mark.slow
def test_a_process_that_cannot_import_this_program_loads_config_checkpoint_and_plugin(
    run: LoadedRun, images: Photographs, tmp_path: Path
) -> None:
    own = with_method(run, "eqlv2")
    write_mmdet(tmp_path, stock_of(own), own.plan.settings, own.classes, own.reading, "Test")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["detector.pth", "detector.py", "sigmoid_scores.py"]
    assert all("import cissod_bench" not in path.read_text() for path in tmp_path.glob("*.py"))
    files = [images.source.file(row) for row in range(len(images.source))]
    found, classes = stock_mmdet(tmp_path / "detector.py", tmp_path / "detector.pth", files)
    assert classes == list(own.classes)
    assert compared(own_found(own, images), found).holds


def test_files_that_stock_mmdet_does_not_load_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement.sys, "executable", "false")
    with pytest.raises(EnvironmentFault, match=r"Stock mmdet does not load .*detector\.py: it ended without a word"):
        stock_mmdet(tmp_path / "detector.py", tmp_path / "detector.pth", [])


@pytest.mark.parametrize(
    ("form", "sampling"),
    [
        pytest.param("torchscript", 0),  # as many samples as a bin spans; below, a timm backbone with 1 in ONNX
        pytest.param("torchscript", 1),
        pytest.param("onnx", 0, marks=_SKIPS["onnx"]),
    ],
)
def test_one_file_finds_the_same_on_images_of_any_size(
    run: LoadedRun, images: Photographs, tmp_path: Path, form: Format, sampling: int
) -> None:
    own = with_method(run, "eqlv2", roi_sampling=sampling, group_by_aspect=True, nms_iou=0.9)
    done = export(own, form, tmp_path, images)
    assert done.agreement is not None
    assert done.agreement.boxes > 20
    assert done.agreement.holds, done.agreement.words
    facts = json.loads((tmp_path / "detector.json").read_text())
    assert facts["classes"] == list(run.classes)
    assert facts["input"]["resize"]["long_side"] == run.plan.settings.long_side


@timm_files.needs_timm
@pytest.mark.parametrize("form", ["mmdet", pytest.param("onnx", marks=_SKIPS["onnx"])])
def test_a_timm_backbone_goes_with_it(run: LoadedRun, images: Photographs, tmp_path: Path, form: Format) -> None:
    changes = {"backbone": f"timm:{timm_files.NETWORK}", "norm": "frozen-bn", "frozen_stages": 4}
    own = with_method(run, "soft-teacher", strides=(8, 16, 32, 64), **changes)
    own.detector.teacher.backbone.net.load_state_dict(timm_files.random_state(), strict=False)
    if form == "mmdet":
        assert compared(own_found(own, images), in_mmdet(tmp_path, own, images)).holds
        assert (tmp_path / "timm_features.py").is_file()
    else:
        near = export(own, form, tmp_path, images).agreement
        assert near is not None
        assert near.holds, near.words


@_SKIPS["safetensors"]
def test_safetensors_hold_the_weights_settings_and_classes(run: LoadedRun, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    done = export(run, "safetensors", tmp_path)
    state = load_file(done.paths[0])
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in run.detector.teacher.state_dict().items()
    }
    assert all(torch.equal(state[key], value) for key, value in run.detector.teacher.state_dict().items())
    with safe_open(done.paths[0], "pt") as file:
        header = file.metadata()
    assert json.loads(header["facts"])["classes"] == list(run.classes)
    stock_model(Stock(json.loads(header["mmdet"]), state))


class Silent(Parts):
    """Changes its scores and says nothing of it."""

    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()


def test_a_method_that_does_not_say_what_it_is_in_a_stock_detector_is_refused(run: LoadedRun) -> None:
    detector = with_method(run, "soft-teacher").detector
    detector.parts = Silent(len(run.classes))
    with pytest.raises(UsageFault, match="Silent replaces activation"):
        stock_of(replace(run, detector=detector))
    pcb = load_method("defrcn").parts(_facts(run, "pcb"))
    with pytest.raises(UsageFault, match="variant pcb"):
        pcb.stock(Stock({}, {}))


def _facts(run: LoadedRun, variant: str) -> Any:
    from cissod_bench.running.assembly import facts_of, sources

    plan = replace(run.plan, method=load_method("defrcn"), variant=variant)
    return facts_of(plan, *sources(plan, at_hand=False))


def test_a_decoupling_layer_that_is_switched_off_is_refused(run: LoadedRun) -> None:
    own = with_method(run, "defrcn")
    with torch.no_grad():
        own.detector.teacher.rpn_head.decoupling.weight[3] = 0.0
    with pytest.raises(UsageFault, match="switched off"):
        stock_of(own)


def test_what_differs_is_counted() -> None:
    box = [[0.0, 0.0, 10.0, 10.0]]
    own = [columns_of(box, [1], [0.9])]
    assert compared(own, [columns_of([[0.1, 0.0, 10.0, 10.0]], [1], [0.9])]).holds
    for other in (columns_of(box, [2], [0.9]), columns_of(box, [1], [0.8]), columns_of([], [], [])):
        near = compared(own, [other])
        assert (near.same, near.holds) == (0, False)
    twice = compared(own, [columns_of(box * 2, [1, 1], [0.9, 0.9])])
    assert (twice.same, twice.more, twice.holds) == (1, 1, False)


def test_where_an_image_keeps_no_more_equal_scores_may_change_places() -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [40.0, 0.0, 50.0, 10.0]]
    own, other = columns_of(boxes[:2], [1, 1], [0.9, 0.5]), columns_of(boxes[::2], [1, 1], [0.9, 0.5])
    near = compared([own], [other], most=2)
    assert (near.boxes, near.same, near.more, near.even, near.holds) == (1, 1, 0, 2, True)
    assert "2 more differ" in near.words
    assert not compared([own], [other], most=3).holds
    assert not compared([own], [columns_of(boxes[::2], [1, 1], [0.5, 0.9])], most=2).holds


def test_a_missing_package_is_told_with_the_extra() -> None:
    with pytest.raises(EnvironmentFault, match=r"no_such_package(.|\n)*cissod-bench\[export\]"):
        needed("no_such_package")


def test_the_command_writes_and_compares(run: LoadedRun, tmp_path: Path, call: Callable[..., Called]) -> None:
    words = ("export", "--run", run.plan.folder, "--format", "torchscript", "--out", tmp_path / "out")
    done = call(*words, "--images", run.plan.images["val"], "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert [Path(path).name for path in told["files"]] == ["detector.pt", "detector.json"]
    assert told["agreement"]["images"] == 6
    assert told["agreement"]["holds"]
    alone = call(*words, "--data-root", tmp_path)
    assert alone.code == 0, alone.err
    assert "Not compared" in alone.out


def test_an_image_of_another_size_than_the_example_goes_through_torchscript(run: LoadedRun, tmp_path: Path) -> None:
    from exported_runs import noise

    from cissod_bench.using.exchange_files import script_program, write_script
    from cissod_bench.using.plain import PlainDetector

    detector = stock_of(with_method(run, "c2am", group_by_aspect=True))
    program = script_program(write_script(tmp_path, detector, noise(104, 128))[0])
    plain = PlainDetector(detector)
    for size in ((128, 70), (40, 200)):
        image = noise(*size)
        own = plain(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float())
        assert len(own[0])
        assert compared([columns_of(*(value.numpy() for value in own))], [program(image)]).holds
        assert float(np.max(program(image)[0])) <= max(size)


def test_an_export_that_nothing_was_found_with_is_not_said_to_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = (np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
    _tell(Output(), Exported((), compared([nothing] * 8, [nothing] * 8)), "onnx")
    told = "Not compared: neither finds anything on the 8 images; --images FOLDER names others.\n"
    assert capsys.readouterr().out == told
