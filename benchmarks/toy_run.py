"""Time a whole toy run of this checkout against that of another one: from the command line to the scores.

The other checkout has a ``.venv`` of its own, e.g. a git worktree of an older commit after ``make setup``. Both do
``cissod-bench run --task toy --method soft-teacher --preset mini`` in processes of their own, one after the other,
alternating; each pair has its own training seed. The preset may have changed between the two: this checkout takes the
other's numbers by ``--set``, so that both do the same work; settings that the other does not know are named, and
``--here`` changes them. The split is drawn before the clock starts, and both must draw the same. Compared are wall,
user and system seconds and the peak memory of the largest process; both APs are printed.

Run ``.venv/bin/python benchmarks/toy_run.py --against DIR --threads 1`` on a machine that does nothing else; the record
goes to ``benchmarks/records/``. ``--iterations 200`` is a shorter run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import measured
from measured import Header, Ratio, ratio

FOLDER = Path(__file__).resolve().parent
KINDS = ("wall", "user", "system", "peak")
TIMES_AS_FAST = 1.5  # wanted: the other's wall time over ours, of a run with all its iterations


class Cost(msgspec.Struct, forbid_unknown_fields=True):
    """What one run cost.

    Attributes:
        seed: of its training.
        wall, user, system: seconds of the run and its loader processes.
        peak: memory of the largest process, MiB.
        train, predict: seconds of these phases, of its record.
        ap: the teacher's, group -> points.
    """

    seed: int
    wall: float
    user: float
    system: float
    peak: float
    train: float
    predict: float
    ap: dict[str, float | None]


class ToyRecord(Header, kw_only=True, forbid_unknown_fields=True):
    """A comparison.

    Attributes:
        against: commit of the other checkout.
        task, method, preset, threads: the work.
        iterations: of a run; 0 where it has all those of the preset.
        settings: ``key=value`` by which this checkout takes the other's numbers.
        here, there: the runs of this and of the other checkout, pair by pair.
        ratios: of the other's costs over this one's: how many times as fast, how much less memory.
    """

    against: str
    task: str
    method: str
    preset: str
    threads: int
    iterations: int
    settings: list[str]
    here: list[Cost]
    there: list[Cost]
    ratios: dict[str, Ratio]


def said(checkout: Path, words: Sequence[str]) -> Any:
    """Return the JSON value that a checkout's ``cissod-bench`` prints.

    Raises:
        SystemExit: it failed.
    """
    python = checkout / ".venv" / "bin" / "python"
    command = [str(python), "-m", "cissod_bench", *words, "--json"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def as_text(value: Any) -> str:
    """Return a setting's JSON value as ``--set`` reads it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def translated(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Return the changes by which one preset's numbers become another's; what that one does not know stays.

    Args:
        here: the preset's settings in this checkout.
        there: likewise in the other.
    """
    wanted = {name: there.get(name, value) for name, value in here.items()}
    if isinstance(here.get("amp"), str) and isinstance(wanted["amp"], bool):  # a truth before it was a word
        wanted["amp"] = "fp16" if wanted["amp"] else "off"
    return [f"{name}={as_text(value)}" for name, value in wanted.items() if value != here[name]]


def run(checkout: Path, words: Sequence[str], work: Path, seed: int, threads: int) -> Cost:
    """Do one run in a process of its own and return what it cost.

    Raises:
        SystemExit: it failed.
    """
    python = checkout / ".venv" / "bin" / "python"
    command = [str(python), "-m", "cissod_bench", "run", *words, "--seed", str(seed), "--work-dir", str(work), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=checkout, stdout=out, stderr=errors, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = code = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        if code:
            sys.exit(f"{' '.join(command)} ended with {code}:\n{errors.read()[-3000:]}")
        out.seek(0)
        (record,) = json.load(out)
    return cost_of(record, seed, wall, used)


def cost_of(record: Mapping[str, Any], seed: int, wall: float, used: resource.struct_rusage) -> Cost:
    """Return what a run cost, by its record and what the system says of its process."""
    timings = record["timings"]
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Cost(
        seed=seed,
        wall=round(wall, 2),
        user=round(used.ru_utime, 2),
        system=round(used.ru_stime, 2),
        peak=round(used.ru_maxrss / unit, 1),
        train=round(timings["train"], 2),
        predict=round(timings["predict"], 2),
        ap=record["ap"]["teacher"],
    )


def compare(options: argparse.Namespace) -> ToyRecord:
    """Do all runs."""
    busy, trees = measured.load(), {"here": FOLDER.parent, "there": options.against.resolve()}
    scale = {name: said(tree, ["presets", options.preset]) for name, tree in trees.items()}
    changes = [*translated(scale["here"], scale["there"]), *options.here]
    unknown = [f"{name}={as_text(value)}" for name, value in scale["here"].items() if name not in scale["there"]]
    print(f"  not known there: {', '.join(unknown) or 'nothing'}", flush=True)
    length = [f"iterations={options.iterations}"] * bool(options.iterations)
    costs: dict[str, list[Cost]] = {"here": [], "there": []}
    with tempfile.TemporaryDirectory() as place:
        works = {name: Path(place) / name for name in trees}
        sums = set()
        for name, tree in trees.items():
            (drawn,) = said(tree, ["make-splits", "--task", options.task, "--work-dir", str(works[name])])
            sums.add(drawn["split_sha256"])
        if len(sums) > 1:
            sys.exit(f"The two checkouts draw other splits of {options.task}: their runs are not the same work.")
        for pair in range(options.pairs):
            for name in ("here", "there") if pair % 2 else ("there", "here"):
                words = ["--task", options.task, "--method", options.method, "--preset", options.preset]
                sets = [*(changes if name == "here" else []), *length, *options.changes]
                words += [word for change in sets for word in ("--set", change)]
                costs[name].append(run(trees[name], words, works[name], pair, options.threads))
                print(f"  pair {pair}, {name}: {costs[name][-1].wall:.1f} s", flush=True)
    whole = not options.iterations and options.preset == "mini"
    ratios = {
        kind: ratio(
            [getattr(cost, kind) for cost in costs["there"]],
            [max(getattr(cost, kind), 0.01) for cost in costs["here"]],
            at_least=TIMES_AS_FAST if kind == "wall" and whole else None,
        )
        for kind in KINDS
    }
    return ToyRecord(
        created=measured.now(),
        commit=measured.commit_of(trees["here"]),
        machine=measured.machine(busy),
        versions=measured.versions(),
        against=measured.commit_of(trees["there"]),
        task=options.task,
        method=options.method,
        preset=options.preset,
        threads=options.threads,
        iterations=options.iterations,
        settings=[*changes, *options.changes],
        here=costs["here"],
        there=costs["there"],
        ratios=ratios,
    )


def show(record: ToyRecord) -> None:
    """Print a comparison."""
    print(
        f"{record.method} on {record.task}, preset {record.preset} of {record.against}, "
        f"{record.iterations or 'all'} iterations, {record.threads} thread(s), load {record.machine.load[0]}"
    )
    print(f"{'':10}{'seed':>6}{'wall':>9}{'user':>9}{'system':>9} s{'peak':>8} MiB   AP of the teacher")
    for pair in zip(record.there, record.here, strict=True):
        for name, cost in zip((record.against, record.commit), pair, strict=True):
            points = ", ".join(f"{group} {'-' if ap is None else f'{ap:.1f}'}" for group, ap in cost.ap.items())
            numbers = f"{cost.wall:9.1f}{cost.user:9.1f}{cost.system:9.1f}  {cost.peak:8.0f}"
            print(f"{name:10}{cost.seed:6}{numbers}       {points}")
    for kind, value in record.ratios.items():
        print(f"  {kind:8} {record.against} over {record.commit}: {value}")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="another checkout, with a .venv")
    parser.add_argument("--pairs", type=int, default=2, help="runs of each")
    parser.add_argument("--iterations", type=int, default=0, help="of a run; 0 takes the preset's")
    parser.add_argument("--steps", type=int, dest="iterations", help="the same")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--task", default="toy")
    parser.add_argument("--method", default="soft-teacher")
    parser.add_argument("--preset", default="mini", help="the other checkout's")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="KEY=VALUE of both; repeatable")
    parser.add_argument("--here", action="append", default=[], help="KEY=VALUE of this checkout alone; repeatable")
    parser.add_argument("--records", type=Path, default=measured.RECORDS, help="folder of the record")
    options = parser.parse_args(arguments)
    if options.pairs < 1:
        parser.error("--pairs is at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and record."""
    options = parsed(arguments)
    record = compare(options)
    show(record)
    short = f"-{options.iterations}it" if options.iterations else ""
    name = f"toy-run-{options.preset}-{options.threads}t{short}"
    print(f"Written: {measured.write_record(options.records, name, record)}")


if __name__ == "__main__":
    main()
