"""When an evaluation is due, which images it takes, what it leaves as it was, and which checkpoints are kept."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cissod_bench.contract.presets import MINI, PRESETS
from cissod_bench.loading.sources import Source
from cissod_bench.training import checkpoint
from cissod_bench.training.evaluating import drawn_rows, is_due, next_due, untouched

EVERY = replace(MINI, iterations=10, eval_every=4)


def test_full_is_evaluated_each_20_000_iterations_and_small_presets_at_the_end_alone() -> None:
    assert {name: settings.eval_every for name, settings in PRESETS.items()} == {
        **dict.fromkeys(("fine-tune", "photo", "mini", "smoke"), 0),
        "full": 20_000,
    }


def test_evaluations_come_at_multiples_and_after_the_last_iteration() -> None:
    assert [done for done in range(11) if is_due(done, EVERY)] == [4, 8, 10]
    assert [next_due(done, EVERY) for done in (0, 3, 4, 7, 8, 9)] == [4, 4, 8, 8, 10, 10]
    never = replace(EVERY, eval_every=0)
    assert not any(is_due(done, never) for done in range(11))
    assert next_due(3, never) == 10


def source_of_ids(ids: list[int]) -> Source:
    source: Source = object.__new__(Source)
    object.__setattr__(source, "image_ids", np.array(ids))
    return source


def test_a_drawn_part_depends_on_the_ids_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Source, "__len__", lambda self: len(self.image_ids))
    ids = list(range(100, 160))
    rows = drawn_rows(source_of_ids(ids), 7)
    assert rows is not None
    assert rows == sorted(rows)
    assert len(set(rows)) == 7
    turned = drawn_rows(source_of_ids(ids[::-1]), 7)
    assert turned is not None
    assert {ids[row] for row in rows} == {ids[::-1][row] for row in turned}
    assert drawn_rows(source_of_ids(ids), 0) is None
    assert drawn_rows(source_of_ids(ids), 60) is None


def test_random_numbers_and_modes_are_as_before() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    model[1].eval()
    following = []
    for touches in (False, True):
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        if touches:
            with untouched(model):
                model.train()
                _ = torch.rand(3), np.random.rand(3), random.random()
        following.append((float(torch.rand(1)), float(np.random.rand()), random.random()))
    assert following[0] == following[1]
    assert [module.training for module in model.modules()] == [True, True, False]


def write(path: Path, iteration: int) -> None:
    torch.save({"iteration": iteration}, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("links", [True, False])
def test_a_kept_checkpoint_is_not_changed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refuse(*paths: Path) -> None:
            raise OSError("this disk knows no links")

        monkeypatch.setattr(checkpoint.os, "link", refuse)
    file = tmp_path / "checkpoint.pth"
    write(file, 3)
    kept = checkpoint.keep(file, "checkpoint_best.pth")
    write(file, 6)
    assert (checkpoint.iteration_of(kept), checkpoint.iteration_of(file)) == (3, 6)
    assert checkpoint.iteration_of(checkpoint.keep(file, "checkpoint_best.pth")) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pth", "checkpoint_best.pth"]


def test_the_newest_older_checkpoints_stay(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    (tmp_path / "checkpoint_best.pth").write_bytes(b"the best")
    for iteration in (0, 5, 10, 15, 20):
        if file.exists():
            checkpoint.keep_older(file, iteration, 2)
        write(file, iteration)
    kept = {path.name: checkpoint.iteration_of(path) for path in tmp_path.glob("checkpoint_0*")}
    assert kept == {"checkpoint_00000010.pth": 10, "checkpoint_00000015.pth": 15}
    assert (tmp_path / "checkpoint_best.pth").read_bytes() == b"the best"
