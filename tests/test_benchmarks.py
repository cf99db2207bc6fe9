"""The benchmarks run in their short form, leave whole records and compare equal work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import measured
import msgspec
import pytest
import step_time
import torch
import toy_run
from step_ours import between, detector_of
from step_work import Work, draw_batch


def test_a_ratio_is_the_median_of_pairs_and_knows_its_goal() -> None:
    found = measured.ratio([2.0, 8.0, 3.0], [1.0, 2.0, 2.0], at_least=1.6)
    assert (found.median, found.low, found.high, found.pairs, found.met) == (2.0, 1.75, 3.0, 3, True)
    assert measured.ratio([1.1], [1.0], at_most=1.03).met is False
    assert measured.ratio([1.1], [1.0]).met is None
    assert "wanted >= 1.6: met" in str(found)


def test_every_record_that_is_kept_is_whole() -> None:
    kinds: dict[str, type[measured.Header]] = {"step-time": step_time.StepRecord, "toy-run": toy_run.ToyRecord}
    for path in measured.RECORDS.glob("*.json"):
        for beginning, kind in kinds.items():
            if path.name.startswith(beginning):
                msgspec.json.decode(path.read_bytes(), type=kind)


@pytest.mark.slow
def test_the_short_form_compares_processes_and_leaves_a_whole_record(tmp_path: Path) -> None:
    # That mmdet's process holds nothing of ours that makes it faster is asserted there (step_stock.py).
    words = ["--preset", "mini", "--pairs", "1", "--steps", "2", "--warm-up", "1", "--records", str(tmp_path)]
    step_time.main([*words, "--sides", "soft-teacher", "mmdet"])
    (path,) = tmp_path.glob("*.json")
    record = msgspec.json.decode(path.read_bytes(), type=step_time.StepRecord)
    assert path.name == f"step-time-mini-cpu-1t-{record.created[:10]}.json"
    assert [side.name for side in record.sides] == ["soft-teacher", "mmdet"]
    assert all(side.wall > 0 and side.peak > side.before > 0 for side in record.sides)
    assert record.ratios["mmdet"]["times as fast"].pairs == 2
    assert record.ratios["mmdet"]["times as fast"].wanted == ">= 1.6"
    first, stock = (side.first_loss for side in record.sides)
    assert abs(first / stock - 1) < step_time.EQUAL
    assert (record.images, record.size, record.threads) == ((8, 4), (76, 128), 1)


def test_the_goals_are_ratios_of_the_same_round() -> None:
    kinds = {"user": 1.0, "system": 0.0}
    rounds = [{name: {"wall": wall, **kinds} for name, wall in (("soft-teacher", 2.0), ("mmdet", 3.0), ("ours", 2.1))}]
    memory = {"soft-teacher": 90.0, "mmdet": 100.0, "ours": 90.0}
    stock, ours = (step_time.ratios_of(name, rounds, memory, "full") for name in ("mmdet", "ours"))
    assert (stock["times as fast"].median, stock["times as fast"].wanted) == (1.5, ">= 1.3")
    assert (stock["our memory"].median, stock["our memory"].met) == (0.9, True)
    assert (ours["wall"].wanted, ours["wall"].met) == ("<= 1.03", False)


def test_other_work_is_refused() -> None:
    step_time.check_equal({"soft-teacher": {"loss": 1.0}, "mmdet": {"loss": 1.0005}})
    for wrong in (1.01, float("nan")):
        with pytest.raises(SystemExit, match="do not do the same work"):
            step_time.check_equal({"soft-teacher": {"loss": wrong}, "mmdet": {"loss": 1.0}})


def test_on_a_cpu_nobody_computes_in_what_one_side_cannot_and_the_record_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    full = Work("full", (), 8, "cpu", 1)
    assert (full.settings().amp, full.departures()) == ("off", ("amp=off",))
    for changes, device, amp in (((), "cuda", "fp16"), (("amp=bf16",), "cpu", "bf16")):
        other = Work("full", changes, 8, device, 1)
        assert (other.settings().amp, other.departures()) == (amp, ())
    beside_mmdets = Work("full", ("amp=bf16",), 8, "cpu", 1, stock=True)
    assert (beside_mmdets.settings().amp, beside_mmdets.departures()) == ("off", ("amp=off",))
    machine = measured.Machine("", 1, 1.0, "", (0.0, 0.0))
    step_time.show(
        step_time.StepRecord(
            created="", commit="", machine=machine, versions={"torch": ""}, preset="full", changes=(), classes=8,
            device="cpu", threads=1, images=(1, 1), size=(800, 1333), pairs=1, steps=1, warm_up=1, sides=[], ratios={},
            losses_differ=None, departures=full.departures(),
        )
    )  # fmt: skip
    assert "for all sides: amp=off" in capsys.readouterr().out


@pytest.mark.parametrize("above", [0, 1, 5, 40, 99])
def test_no_rounding_moves_a_number_across_a_threshold(above: int) -> None:
    values = torch.rand(100, generator=torch.Generator().manual_seed(above), dtype=torch.float64) ** 4
    threshold = between(values, above)
    wrong = [
        factor for factor in (1 - 1e-6, 1 + 1e-6) if not torch.equal(values * factor > threshold, values > threshold)
    ]
    assert not wrong
    assert abs(int((values > threshold).sum()) - above) <= max(above // 8, 1)
    assert between(values[:1], 0) == float(values[0])


def test_the_maps_of_a_random_deep_network_keep_their_size() -> None:
    changes = ("base_channels=16", "fpn_channels=16", "fc_channels=32", "short_side=96,96", "long_side=160")
    settings = Work("full", (*changes, "labelled_per_gpu=1", "unlabelled_per_gpu=1"), 3, "cpu", 1).settings()
    model = detector_of("soft-teacher", settings, 3, torch.device("cpu"))
    inputs, _ = model._prepare(model.student, draw_batch(1, settings, 3)["strong"])
    for network in (model.student, model.teacher):
        assert all(0.1 < float(level.std()) < 10 for level in network.backbone(inputs))


def test_sides_take_turns_and_each_begins_as_often() -> None:
    asked: list[tuple[str, int]] = []

    class Fake:
        def __init__(self, side: str) -> None:
            self.side = side

        def step(self, number: int) -> dict[str, float]:
            asked.append((self.side, number))
            return {"loss": 1.0}

    said = step_time.in_turns([Fake("a"), Fake("b")], 4, 10)  # type: ignore[list-item]
    assert [side for side, _ in asked] == ["a", "b", "b", "a", "b", "a", "a", "b"]
    assert [number for _, number in asked] == [10, 10, 11, 11, 12, 12, 13, 13]
    assert [sorted(one) for one in said] == [["a", "b"]] * 4


def test_one_presets_numbers_are_given_to_another() -> None:
    here = {"lr": 0.1, "strides": [8, 16], "amp": "bf16", "new": 3, "frozen": True}
    there = {"lr": 0.1, "strides": [4, 8], "amp": False, "frozen": False, "gone": 1}
    assert toy_run.translated(here, there) == ["strides=4,8", "amp=off", "frozen=False"]


def _checkout(folder: Path, seconds: float) -> Path:
    """A checkout whose command line prints what a run would, after some time."""
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    run = {"timings": {"train": 2.0, "predict": 1.0}, "ap": {"teacher": {"all": 12.5, "min": None}}}
    answers: dict[str, Any] = {"presets": {"lr": seconds}, "make-splits": [{"split_sha256": "0"}], "run": [run]}
    python.write_text(
        f"#!{sys.executable}\nimport json, sys, time\n"
        f"print(json.dumps({answers!r}[sys.argv[3]]))\n"
        f"if sys.argv[3] == 'run':\n    time.sleep({seconds})\n"
        f"    open({str(folder / 'asked')!r}, 'a').write(' '.join(sys.argv[3:]) + chr(10))\n"
    )
    python.chmod(0o755)
    return folder


def test_a_toy_run_is_compared_with_another_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = _checkout(tmp_path / "here", 0.1), _checkout(tmp_path / "there", 0.4)
    monkeypatch.setattr(toy_run, "FOLDER", here / "benchmarks")
    toy_run.main(["--against", str(there), "--pairs", "2", "--steps", "2", "--records", str(tmp_path / "records")])
    (path,) = (tmp_path / "records").glob("*.json")
    record = msgspec.json.decode(path.read_bytes(), type=toy_run.ToyRecord)
    walls = [(there.wall, here.wall) for there, here in zip(record.there, record.here, strict=True)]
    assert all(there > 0.4 and here > 0.1 for there, here in walls)
    assert record.ratios["wall"].median == pytest.approx(sum(there / here for there, here in walls) / 2)
    assert (record.iterations, record.settings, record.here[1].ap) == (2, ["lr=0.4"], {"all": 12.5, "min": None})
    asked = [(folder / "asked").read_text().splitlines() for folder in (here, there)]
    assert [len(words) for words in asked] == [2, 2]
    changes = [[word for word in lines[0].split() if "=" in word] for lines in asked]
    assert (changes[0], changes[1]) == (["lr=0.4", "iterations=2"], ["iterations=2"])
    assert [line.split("--seed ")[1].split()[0] for line in asked[0]] == ["0", "1"]
