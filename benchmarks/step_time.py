"""Time a training step: our Soft Teacher against mmdet's own, ours against our Soft Teacher, any method against it.

Every side is a process of its own, started as a user would start it: ours with our operators and our allocator's
setting, mmdet's with stock ones and its own model. All have the same weights, images and random draws; the losses of
the first step must be equal, so that nobody compares different work. The processes live side by side and take turns,
one step each, in an order that changes every round; what is compared is the median of the rounds' ratios. A step is
forward, backward, the optimiser, the teacher's update and the method's state; images are drawn before the clock starts,
and the start of a generation and checkpoints are left out. The learning rate is next to nothing, so that the work stays
the same. Thresholds are set so that the random teacher finds about as many pseudo labels per image as a trained one.
Memory is the peak of a process (on a GPU, of what torch allocated).

Run ``.venv/bin/python benchmarks/step_time.py --preset mini --threads 1`` from the root of the repository, on a machine
that does nothing else; the record goes to ``benchmarks/records/``. ``--preset full --set unlabelled_per_gpu=1 --pairs 1
--steps 3`` is the paper's detector at full size on a CPU, where fp16 is turned off for all sides; where one of them is
mmdet's own, so is bf16, which its operators lack. ``--methods all`` compares every method that has a teacher with
Soft Teacher instead, each in its last stage and with the same thresholds: a classifier with other scores (EQLv2's
sigmoids) finds another number of pseudo labels, as it would at the start of a training. ``--help`` lists the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import measured
import numpy as np
from measured import Header, Ratio, ratio

FOLDER = Path(__file__).resolve().parent
REFERENCE, STOCK = "soft-teacher", "mmdet"
TIMES_AS_FAST = {"mini": 1.6, "photo": 1.6, "full": 1.3}  # wanted: mmdet's own against our Soft Teacher
SLOWER, MEMORY = 1.03, 1.0  # wanted: ours against our Soft Teacher, our peak memory against mmdet's; at most
EQUAL = 1e-3  # relative difference of the losses of the first step, at most
WEIGHTS = "weights.pth"


class Side(msgspec.Struct, forbid_unknown_fields=True):
    """One side: medians of its steps, milliseconds; the memory of its processes, MiB.

    Attributes:
        name: a method, or "mmdet".
        wall, user, system: of a step.
        peak: the largest of its processes.
        before: of that process before a model was built, which is what the imports take.
        first_loss: of the first step.
    """

    name: str
    wall: float
    user: float
    system: float
    peak: float
    before: float
    first_loss: float


class StepRecord(Header, kw_only=True, forbid_unknown_fields=True):
    """One comparison.

    Attributes:
        preset, changes, classes, device, threads: the work.
        departures: changes of the preset that the device forced upon all sides.
        images: labelled and unlabelled ones of an iteration.
        size: height and width of an image.
        pairs, steps, warm_up: processes of each side, rounds that are counted in each, and those before that are not.
        sides: the reference first.
        ratios: of each side with the reference: name -> "times as fast" (mmdet's wall time over ours), or "wall" and
            "processor" (of a method over Soft Teacher), and "memory".
        losses_differ: relative difference between mmdet's and our Soft Teacher's losses in any round; None without
            mmdet.
    """

    preset: str
    changes: tuple[str, ...]
    classes: int
    device: str
    threads: int
    images: tuple[int, int]
    size: tuple[int, int]
    pairs: int
    steps: int
    warm_up: int
    sides: list[Side]
    ratios: dict[str, dict[str, Ratio]]
    losses_differ: float | None
    departures: tuple[str, ...] = ()


class Process:
    """A side's process, which does a step when it is asked to."""

    def __init__(self, side: str, folder: Path, threads: int) -> None:
        reading, writing = os.pipe()
        words = [sys.executable, str(FOLDER / "step_stock.py"), str(folder), str(writing)]
        if side != STOCK:
            words = [sys.executable, str(FOLDER / "step_ours.py"), str(folder), str(writing), side]
        self.side, self.answers = side, os.fdopen(reading, encoding="utf-8")
        self.printed = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  closed in `close`
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=self.printed,
            stderr=self.printed,
            text=True,
            env=environment,
            pass_fds=(writing,),
        )
        os.close(writing)

    def answer(self) -> dict[str, Any]:
        """Return what the process says next.

        Raises:
            SystemExit: it has ended; its last words are the message.
        """
        line = self.answers.readline()
        if not line:
            self.process.wait()
            self.printed.seek(0)
            sys.exit(f"The process of {self.side} has ended:\n{self.printed.read()[-3000:]}")
        return cast(dict[str, Any], json.loads(line))

    def step(self, number: int) -> dict[str, float]:
        """Let it do a step and return its seconds and its loss."""
        asked = cast(IO[str], self.process.stdin)
        asked.write(f"{number}\n")
        asked.flush()
        return self.answer()

    def end(self) -> dict[str, float]:
        """Let it end and return its memory."""
        cast(IO[str], self.process.stdin).close()
        memory = self.answer()
        self.process.wait()
        self.close()
        return memory

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        cast(IO[str], self.process.stdin).close()
        self.answers.close()
        self.printed.close()


@contextmanager
def processes(sides: Sequence[str], folder: Path, threads: int) -> Iterator[list[Process]]:
    """Start a process a side, all at once, and wait until their models are built."""
    with ExitStack() as stack:
        started = []
        for side in sides:
            started.append(Process(side, folder, threads))
            stack.callback(started[-1].close)
        for process in started:
            process.answer()
        yield started


def in_turns(started: Sequence[Process], rounds: int, first: int) -> list[dict[str, dict[str, float]]]:
    """Return what every side says of every round; who begins changes from round to round, and so does the direction."""
    said = []
    for number in range(rounds):
        turn = number % len(started)
        order = [*started[turn:], *started[:turn]]
        if number // len(started) % 2:
            order.reverse()
        said.append({process.side: process.step(first + number) for process in order})
    return said


def check_equal(said: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse sides whose first losses differ.

    Raises:
        SystemExit: mmdet's and our Soft Teacher's do.
    """
    ours, stock = said[REFERENCE]["loss"], said[STOCK]["loss"]
    if not abs(ours - stock) <= EQUAL * abs(stock):
        sys.exit(f"The two do not do the same work: the first loss is {ours:.6f} here and {stock:.6f} in mmdet.")


def ratios_of(
    side: str, rounds: Sequence[Mapping[str, Mapping[str, float]]], memory: Mapping[str, float], preset: str
) -> dict[str, Ratio]:
    """Return a side's ratios with the reference; goals are set on the presets that have one."""

    def column(name: str, *kinds: str) -> list[float]:
        return [sum(said[name][kind] for kind in kinds) for said in rounds]

    goal = TIMES_AS_FAST.get(preset)
    if side == STOCK:
        return {
            "times as fast": ratio(column(side, "wall"), column(REFERENCE, "wall"), at_least=goal),
            "times the processor time": ratio(column(side, "user", "system"), column(REFERENCE, "user", "system")),
            "our memory": ratio([memory[REFERENCE]], [memory[side]], at_most=MEMORY if goal else None),
        }
    return {
        "wall": ratio(column(side, "wall"), column(REFERENCE, "wall"), at_most=SLOWER if side == "ours" else None),
        "processor": ratio(column(side, "user", "system"), column(REFERENCE, "user", "system")),
        "memory": ratio([memory[side]], [memory[REFERENCE]]),
    }


def side_of(
    name: str, rounds: Sequence[Mapping[str, Mapping[str, float]]], memory: dict[str, float], loss: float
) -> Side:
    """Return a side's medians."""
    wall, user, system = (
        round(1000 * float(np.median([said[name][kind] for said in rounds])), 2) for kind in ("wall", "user", "system")
    )
    return Side(name, wall, user, system, round(memory["peak"], 1), round(memory["before"], 1), loss)


def compare(sides: Sequence[str], options: argparse.Namespace) -> StepRecord:
    """Measure one comparison."""
    import torch
    from step_ours import prepare
    from step_work import Work, size_of

    torch.set_num_threads(options.threads)
    rounds: list[dict[str, dict[str, float]]] = []
    memory: dict[str, dict[str, float]] = {}
    busy, firsts, differ = measured.load(), {}, 0.0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        changes, stock = tuple(options.changes), STOCK in sides
        work = Work(options.preset, changes, options.classes, options.device, options.threads, stock=stock)
        work = prepare(work, folder, WEIGHTS, batches=1 if options.preset == "full" else 4)
        (folder / "work.json").write_bytes(msgspec.json.encode(work))
        for pair in range(options.pairs):
            begun = sides if pair % 2 == 0 else sides[::-1]
            with processes(begun, folder, options.threads) as started:
                said = in_turns(started, options.warm_up + options.steps, pair * options.steps)
                if STOCK in sides:
                    check_equal(said[0])
                    differ = max([differ, *(abs(one[REFERENCE]["loss"] / one[STOCK]["loss"] - 1) for one in said)])
                firsts = firsts or {side: said[0][side]["loss"] for side in sides}
                rounds += said[options.warm_up :]
                for process in started:
                    told = process.end()
                    memory[process.side] = max(told, memory.get(process.side, told), key=lambda one: one["peak"])
    settings = work.settings()
    peaks = {side: memory[side]["peak"] for side in sides}
    return StepRecord(
        created=measured.now(),
        commit=measured.commit_of(FOLDER.parent),
        machine=measured.machine(busy),
        versions=measured.versions(),
        preset=options.preset,
        changes=tuple(options.changes),
        classes=options.classes,
        device=options.device,
        threads=options.threads,
        images=(settings.labelled_per_gpu, settings.unlabelled_per_gpu),
        size=size_of(settings),
        pairs=options.pairs,
        steps=options.steps,
        warm_up=options.warm_up,
        sides=[side_of(side, rounds, memory[side], firsts[side]) for side in sides],
        ratios={side: ratios_of(side, rounds, peaks, options.preset) for side in sides if side != REFERENCE},
        losses_differ=differ if STOCK in sides else None,
        departures=work.departures(),
    )


def show(record: StepRecord) -> None:
    """Print a comparison."""
    (labelled, unlabelled), (height, width) = record.images, record.size
    print(
        f"preset {record.preset} {' '.join(record.changes)} {record.classes} classes, {labelled} + {unlabelled} images "
        f"of {height} x {width}, {record.device}, {record.threads} thread(s), torch {record.versions['torch']}, "
        f"load {record.machine.load[0]}"
    )
    if record.departures:
        print(f"  a {record.device} cannot do what the preset says; for all sides: {', '.join(record.departures)}")
    print(f"{'':14}{'wall':>10}{'user':>10}{'system':>10} ms{'peak':>10}{'imports':>10} MiB")
    for side in record.sides:
        numbers = f"{side.wall:10.1f}{side.user:10.1f}{side.system:10.1f}   {side.peak:10.0f}{side.before:10.0f}"
        print(f"{side.name:14}{numbers}")
    for side, ratios in record.ratios.items():
        for name, of_side in ratios.items():
            print(f"  {side + ' against ' + REFERENCE:30} {name:26} {of_side}")
    if record.losses_differ is not None:
        print(f"  losses differ from mmdet's by {record.losses_differ:.1e} at most")
    sys.stdout.flush()


def with_teacher() -> list[str]:
    """Return the methods of the catalogue that label unlabelled images, but for Soft Teacher."""
    from cissod_bench.catalogue import list_methods, load_method
    from cissod_bench.contract.method import USES_UNLABELLED

    known = (name for name in list_methods() if load_method(name).images in USES_UNLABELLED)
    return [name for name in known if name != REFERENCE]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mini", help="whose detector and images")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="KEY=VALUE of a setting; repeatable")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=2, help="processes of each side, one after the other")
    parser.add_argument("--steps", type=int, default=30, help="rounds that are counted in each")
    parser.add_argument("--warm-up", type=int, default=3, help="rounds before them, at least 1")
    parser.add_argument("--classes", type=int, default=8, help="foreground classes")
    parser.add_argument("--sides", nargs="+", default=[REFERENCE, STOCK, "ours"], help=f"{REFERENCE} and others")
    parser.add_argument("--methods", nargs="+", help=f"in place of --sides: each with {REFERENCE} alone, or all")
    parser.add_argument("--records", type=Path, default=measured.RECORDS, help="folder of the record")
    options = parser.parse_args(arguments)
    if REFERENCE not in options.sides or options.warm_up < 1 or min(options.pairs, options.steps) < 1:
        parser.error(f"--sides has {REFERENCE}; --warm-up, --pairs and --steps are at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and record every comparison."""
    options = parsed(arguments)
    groups = [options.sides]
    if options.methods:
        names = with_teacher() if options.methods == ["all"] else options.methods
        groups = [[REFERENCE, name] for name in names]
    for sides in groups:
        record = compare(sides, options)
        show(record)
        of_method = f"-{sides[1]}" if options.methods else ""
        name = f"step-time-{options.preset}-{options.device}-{options.threads}t{of_method}"
        print(f"Written: {measured.write_record(options.records, name, record)}")


if __name__ == "__main__":
    main()
