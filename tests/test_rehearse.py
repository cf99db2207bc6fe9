"""The rehearsal at true size (scripts/rehearse.sh): what can be tested of it without minutes of training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rehearse
import rehearse_rank

from cissod_bench.catalogue import load_task

ROOT = Path(__file__).parents[1]


def test_the_papers_four_sub_tasks_are_rehearsed_with_files_of_their_own_layout() -> None:
    inputs = {path.split("/")[0] for name in rehearse.TASKS for path in load_task(name).inputs.values()}
    assert inputs == {"coco", "lvis", "objects365"} == set(rehearse.make_splits.LAYOUTS)
    names = {one["name"] for one in rehearse.make_splits.categories_of("coco")}
    for name in ("coco-split1", "coco-split2"):
        assert set(load_task(name).minority) < names


def test_an_image_that_is_not_there_is_the_same_each_time_and_of_its_records_size() -> None:
    image = rehearse_rank.drawn("patch1/a.jpg", 640, 427)
    assert image.shape == (427, 640, 3)
    np.testing.assert_array_equal(image, rehearse_rank.drawn("patch1/a.jpg", 640, 427))
    assert (image != rehearse_rank.drawn("patch1/b.jpg", 640, 427)).any()


def test_given_files_are_linked_and_nothing_is_written_beside_them(tmp_path: Path) -> None:
    task = load_task("coco-split1")
    given = tmp_path / "given"
    for path in task.inputs.values():
        (given / path).parent.mkdir(parents=True, exist_ok=True)
        (given / path).write_text("{}")
    before = sorted(given.rglob("*"))
    rehearse.lay_out(task, tmp_path / "data", given, scale=1)
    assert sorted(given.rglob("*")) == before
    assert all((tmp_path / "data" / path).resolve() == (given / path).resolve() for path in task.inputs.values())
    assert all((tmp_path / "data" / path).is_dir() for path in task.images.values())


def test_a_run_that_was_not_continued_where_it_stopped_is_refused() -> None:
    rehearse.check([1, 2, 3], [1, 2, 3, 4], "Continuing after iteration 3 of 360000.")
    for after, said in (([1, 2, 3, 4], "no word"), ([1, 2, 4], "Continuing after iteration 3 "), ([1, 2, 3], "")):
        with pytest.raises(SystemExit):
            rehearse.check([1, 2, 3], after, said)


def test_the_command_says_what_it_can() -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    asked = [str(ROOT / "scripts" / "rehearse.sh"), "coco-split9"]
    ended = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "there is no 'coco-split9'; known: coco-split1, coco-split2, lvis, coco-o365" in ended.stderr
