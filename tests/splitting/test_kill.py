"""kill -9 at random moments of ``make-splits``: never a wrong file under a final name, and a re-run mends everything.

``CISSOD_KILL_COCO=1`` does the same with the real boxes of MS-COCO, which takes some minutes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from split_folders import FILES, data_bytes

from cissod_bench.splitting.manifest import verify

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 50
TASK = """
title = "To be killed"
minority = ["bee"]
min_instances = 20
train = {annotations = "train.json", images = "train"}
val = {annotations = "val.json", images = "val"}
"""

# Says when it begins, and lingers where a kill between two system calls would be met once in thousands of rounds.
PROGRAM = """
import os, sys, time
from cissod_bench import cli
from cissod_bench.split_folders import ensure as tasks
def lingering(function):
    def wrapped(*arguments, **named):
        time.sleep(LINGER)
        result = function(*arguments, **named)
        time.sleep(LINGER)
        return result
    return wrapped
LINGER = float(sys.argv.pop(1))
for name in ("fsync", "replace", "mkdir", "rmdir"):
    setattr(os, name, lingering(getattr(os, name)))
print("begun", flush=True)
cli.entry()
"""


@dataclass(frozen=True)
class Draw:
    """One way to call make-splits.

    Attributes:
        arguments: of the command.
        folder: the split's place.
        linger: seconds to wait around each step that other processes can see.
    """

    arguments: tuple[str, ...]
    folder: Path
    linger: float

    def started(self, *options: str) -> subprocess.Popen[str]:
        """Return the process at the moment it begins to work."""
        command = [sys.executable, "-c", PROGRAM, str(self.linger), "make-splits", *self.arguments, *options, "--quiet"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    def seconds(self, *options: str) -> float:
        """Run to the end and return how long it worked."""
        with self.started(*options) as process:
            begun = time.perf_counter()
            assert process.wait(timeout=300) == 0
            return time.perf_counter() - begun

    def killed(self, moment: float, *options: str) -> bool:
        """Kill the process after some seconds; return whether it was still at work."""
        with self.started(*options) as process:
            time.sleep(moment)
            process.kill()
            return process.wait() == -signal.SIGKILL

    def state(self) -> str:
        """Return what others see: the step the killed process had reached."""
        beside = [path.name for path in self.folder.parent.glob(".*.tmp")] if self.folder.parent.exists() else []
        kinds = sorted({name.split(".")[2].split("-")[0] for name in beside})
        return " + ".join([*(["split"] if self.folder.exists() else []), *kinds]) or "nothing"


def written(root: Path) -> Path:
    """Write a data set of 3000 images and return its task file."""
    dice = random.Random(0)
    images = [
        {"id": one, "width": 64, "height": 64, "file_name": f"{one}.png", "note": "x" * 500} for one in range(3000)
    ]
    boxes = [
        {"id": one, "image_id": dice.randrange(3000), "category_id": dice.choice((1, 1, 2)), "bbox": [1, 2, 3, 4]}
        for one in range(15_000)
    ]
    classes = [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}]
    for role, most in (("train", 3000), ("val", 10)):
        of_role = [box for box in boxes if box["image_id"] < most]
        content = {"images": images[:most], "annotations": of_role, "categories": classes}
        (root / f"{role}.json").write_text(json.dumps(content), encoding="utf-8")
    (root / "killed.toml").write_text(TASK, encoding="utf-8")
    return root / "killed.toml"


def check_kills(draw: Draw, aside: Path) -> Counter[str]:
    """Kill first draws and redraws in turn, each at a drawn moment; return what was seen after the kills.

    Args:
        draw: the draw.
        aside: where to keep a split of other options, which redraws find in their place.
    """
    dice, seen, quick = random.Random(0), Counter[str](), replace(draw, linger=0.0)
    quick.seconds("--labelled-percent", "30")
    shutil.copytree(draw.folder, aside)
    old, seconds = data_bytes(aside), {"--force": draw.seconds("--force")}
    new = data_bytes(draw.folder)
    assert old != new
    shutil.rmtree(draw.folder)
    seconds["-q"] = draw.seconds("-q")
    while sum(seen.values()) < ROUNDS:
        option = ("-q", "--force")[sum(seen.values()) % 2]  # a first draw, a redraw
        shutil.rmtree(draw.folder)
        if option == "--force":
            shutil.copytree(aside, draw.folder)
        if draw.killed(dice.uniform(0, 1) * seconds[option], option):
            seen[draw.state()] += 1
        else:
            seconds[option] *= 0.95  # the machine has become faster
        if draw.folder.exists():
            assert sorted(path.name for path in draw.folder.iterdir()) == sorted([*FILES, "manifest.json"])
            assert data_bytes(draw.folder) in ([old, new] if option == "--force" else [new])
            verify(draw.folder)
        quick.seconds(option)
        assert data_bytes(draw.folder) == new
        verify(draw.folder)
        assert sorted(path.name for path in draw.folder.parent.iterdir()) == [".seed0.lock", "seed0"]
    return seen


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
@pytest.mark.usefixtures("forked")
def test_a_kill_at_any_moment_leaves_the_old_split_the_new_one_or_none(tmp_path: Path) -> None:
    task = written(tmp_path)
    arguments = ("--task", str(task), "--data-root", str(tmp_path), "--work-dir", str(tmp_path / "work"))
    seen = check_kills(Draw(arguments, tmp_path / "work/splits/killed/seed0", linger=0.01), tmp_path / "aside")
    assert {"nothing", "new", "split + new"} <= seen.keys(), seen  # reading, writing, writing again


@pytest.mark.slow
@pytest.mark.skipif("CISSOD_KILL_COCO" not in os.environ, reason="CISSOD_KILL_COCO is not set: it takes minutes")
@pytest.mark.usefixtures("forked")
def test_a_kill_at_any_moment_of_the_real_draw(tmp_path: Path, test_data: Path) -> None:
    arguments = ("--task", "coco-split1", "--data-root", str(test_data), "--work-dir", str(tmp_path / "work"))
    seen = check_kills(Draw(arguments, tmp_path / "work/splits/coco-split1/seed0", linger=0.0), tmp_path / "aside")
    print(f"\n{ROUNDS} kills: {dict(seen)}")
    assert {"nothing", "new", "split + new"} <= seen.keys(), seen
