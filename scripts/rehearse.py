"""The paper's sub-tasks at true size: files, split, start, two steps, a partial evaluation, a stop, a continuation.

``scripts/rehearse.sh`` says how it is called; ``docs/speed.md`` holds what it printed. Settings are those of preset
full, but for what a CPU cannot do: number format, unlabelled images per iteration (memory), weights of the backbone
(drawn by code), and how often it logs and evaluates. A time is that of a start beside whatever else the machine does,
so processor seconds stand beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import make_splits

from cissod_bench.catalogue import load_task
from cissod_bench.launching.ranks import free_port, rank_environment
from cissod_bench.splitting.task import Task

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("coco-split1", "coco-split2", "lvis", "coco-o365")
PROCESSES = 2
EVALUATED = 4  # images of val
STEPS = 2  # before the evaluation
SETTINGS = (
    *("amp=off", "unlabelled_per_gpu=1", "workers=1", "log_every=1"),
    *(f"eval_every={STEPS}", f"eval_images={EVALUATED}"),
)
_PATCHES = [f"patch{number}" for number in range(51)]
FOLDERS_BELOW = {"coco": ["train2017", "val2017"], "objects365/train": _PATCHES, "objects365/val": _PATCHES}
"""Folder of images -> those in it, which must be there even if the images are not."""
INTERRUPTED = 5  # exit code
PATIENCE = 3600.0  # seconds for a start, which loads of machines make long
WANTED_SECONDS, WANTED_MB = 60, 3000


def lay_out(task: Task, root: Path, annotations: Path | None, scale: float) -> None:
    """Put a task's annotation files below the data root, as links where they are given, and make its image folders."""
    for path in task.inputs.values():
        given = annotations / path if annotations is not None else None
        if given is not None and given.is_file() and not (root / path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(given.resolve())
    make_splits.make_missing(task, root, scale)
    for path in task.images.values():
        for name in FOLDERS_BELOW.get(path, ["."]):
            (root / path / name).mkdir(parents=True, exist_ok=True)


def write_backbone(path: Path) -> None:
    """Write a ResNet-50 of random weights whose features stay as large as its images; nothing is fetched."""
    import torch
    from mmdet.models.backbones import ResNet

    torch.manual_seed(0)
    state = ResNet(50, style="caffe").state_dict()
    for name, value in state.items():
        if name.endswith("bn3.weight"):
            value.fill_(0.2)  # or each of the 16 blocks would double them
    state["bn1.weight"].div_(58)  # plain pixels have a deviation of about 58
    torch.save({name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}, path)


class Start:
    """A run's processes, started as torchrun would.

    Args:
        words: of the command line behind "run".
        work: the work folder; the notes of the processes lie in it.
        name: of this start.
    """

    def __init__(self, words: Sequence[str], work: Path, name: str) -> None:
        self.notes_file, self.output = work / f"{name}.jsonl", work / f"{name}.txt"
        self.notes_file.unlink(missing_ok=True)
        script, port = str(ROOT / "scripts" / "rehearse_rank.py"), free_port()
        command = [sys.executable, script, str(self.notes_file), "run", *words]
        shared = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONWARNINGS": "ignore"}
        with self.output.open("wb") as out:
            self.ranks = [
                subprocess.Popen(
                    command, env={**shared, **rank_environment(rank, PROCESSES, port)}, stdout=out, stderr=out
                )
                for rank in range(PROCESSES)
            ]

    def notes(self, what: str = "") -> list[dict[str, Any]]:
        """Return what the processes noted, all or of one kind."""
        texts = self.notes_file.read_text(encoding="ascii").splitlines() if self.notes_file.exists() else []
        lines = [json.loads(text) for text in texts]
        return [line for line in lines if line["what"] == what or not what]

    def wait_for(self, what: str, number: int) -> None:
        """Wait until every process has noted something so often.

        Raises:
            SystemExit: one ended before, or it takes too long.
        """
        until = time.monotonic() + PATIENCE
        while min(sum(one["rank"] == rank for one in self.notes(what)) for rank in range(PROCESSES)) < number:
            if any(rank.poll() is not None for rank in self.ranks) or time.monotonic() > until:
                self.end()
                raise SystemExit(f"No {what} was reached; see {self.output}:\n{self.output.read_text()[-3000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Ask one process to stop, as Slurm and Ctrl-C do, and wait for all.

        Raises:
            SystemExit: a process did not end as one that can be continued.
        """
        self.ranks[0].send_signal(signal.SIGTERM)
        codes = [rank.wait(PATIENCE) for rank in self.ranks]
        if set(codes) != {INTERRUPTED}:
            raise SystemExit(f"The processes ended with {codes}; see {self.output}:\n{self.output.read_text()[-3000:]}")

    def end(self) -> None:
        """End what is left."""
        for rank in self.ranks:
            rank.kill()

    def row(self, title: str) -> str:
        """Return a line of the table: how long it took to the first step, and the memory, of the worst process."""
        starts, every = self.notes("start"), self.notes()
        steps = [line["seconds"] for line in self.notes("step") if line["rank"] == 0]
        begun = max(line["seconds"] for line in starts)
        seconds, processor, peak, mapped = (
            max(line[name] for line in starts) for name in ("seconds", "processor", "peak", "mapped")
        )
        first = f"{steps[0] - begun:,.0f} s" if steps else "none"
        most = max(line["peak"] for line in every)
        verdict = f"{seconds:,.0f} s | {processor:,.0f} s | {peak:,.0f} MB | {mapped:,.0f} MB"
        return f"| {title} | {verdict} | {first} | {most:,.0f} MB |"


def rehearse(name: str, options: argparse.Namespace, work: Path) -> None:
    """Rehearse one task and print a line for each of its starts."""
    task, root = load_task(name), work / "data"
    lay_out(task, root, options.annotations, options.scale)
    folders = ["--data-root", str(root), "--work-dir", str(work)]
    draw = [sys.executable, "-m", "cissod_bench", "make-splits", "--task", name, "--json", "-q", *folders]
    drawn = make_splits.measured(draw)
    counts = json.loads(drawn.printed)[0]["counts"]
    print(
        f"{task.title}: D_l {counts['labelled']:,}, D_u {counts['unlabelled']:,} images; drawn in {drawn.seconds:,.0f} "
        f"s with {drawn.memory / 1e6:,.0f} MB",
        flush=True,
    )
    backbone = work / "backbone.pth"
    if not backbone.exists():
        write_backbone(backbone)
    settings = (*SETTINGS, f"pretrained={backbone}", "pretrained_kind=caffe", *options.changes)
    words = ["--method", options.method, "--task", name, "--preset", "full", *folders]
    words += [word for setting in settings for word in ("--set", setting)]
    first = Start(words, work, f"{name}-first")
    first.wait_for("evaluation", 1)
    first.stop()
    print(first.row(f"{name}, first start"), flush=True)
    steps = done(work)
    again = Start(words, work, f"{name}-again")
    again.wait_for("step", 1)
    again.stop()
    print(again.row(f"{name}, continued after {steps[-1]}"), flush=True)
    check(steps, done(work), again.output.read_text())


def done(work: Path) -> list[int]:
    """Return the iterations that the run's log holds."""
    (log,) = work.glob("runs/*/*/*/*/*/log.jsonl")
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    evaluations = [line for line in lines if "eval_images" in line]
    assert [line["eval_images"] for line in evaluations] == [EVALUATED] * len(evaluations) != []
    return [line["iteration"] for line in lines if "eval_images" not in line]


def check(before: list[int], after: list[int], said: str) -> None:
    """See that a continuation began where the stop was and that no iteration is missing.

    Raises:
        SystemExit: it is not so.
    """
    if f"Continuing after iteration {before[-1]} " not in said or after != list(range(1, len(after) + 1)):
        raise SystemExit(f"The run was not continued after {before[-1]}: {after}.\n{said[-3000:]}")
    if len(after) <= len(before):
        raise SystemExit(f"The continued run made no step: {after}.")


def main() -> None:
    """Rehearse the tasks one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="|".join(TASKS))
    parser.add_argument("--annotations", type=Path, help="where files lie, as below a data root; others are made")
    parser.add_argument("--work-dir", type=Path, help="where all is written  [default: a temporary folder]")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the files made, 1 for the real ones'")
    parser.add_argument("--method", default="ours")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--keep", action="store_true", help="leave splits and runs there")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in TASKS]:
        parser.error(f"there is no {unknown[0]!r}; known: {', '.join(TASKS)}")
    print(f"Wanted of a start: {WANTED_SECONDS} s, {WANTED_MB:,} MB per process.")
    print("| start | seconds | processor | peak | of it mapped | first step | peak of all |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        work = options.work_dir or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        for name in options.names or TASKS:
            rehearse(name, options, work)
            for part in () if options.keep else ("runs", "splits"):
                shutil.rmtree(work / part, ignore_errors=True)


if __name__ == "__main__":
    main()
