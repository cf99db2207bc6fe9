"""What a GPU machine shall tell, in one go of at most six minutes; its answers go to ``benchmarks/records/``.

* **speed**: images per second and peak memory of our Soft Teacher and of ours beside mmdet's own SoftTeacher, at preset
  ``full`` with 1 + 4 and 4 + 16 images, in fp32, fp16 and bf16 (``step_time.py`` does it; its processes take turns).
* **idle**: the share of a step's time in which the GPU does nothing, and how often the host waits for it: by torch's
  own debug mode, and as ``waits.py`` counts on any device.
* **equal**: the losses of a step here and on the CPU. All detections regress boxes in it: which of them are steady is
  told by random numbers, and a GPU draws others.
* **alone**: one process with a process group (NCCL), wrapped as with several, has the losses of one without.
* **mixed**: every method trains in mixed precision and every loss is finite.

Run ``.venv/bin/python benchmarks/gpu.py`` from the root of the repository. Parts that would begin after ``--minutes``
are left out and named in the record, which is written after every part. ``--device cpu --preset smoke`` shows that the
script itself runs; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import measured
import msgspec
import step_time
import torch
import torch.distributed as dist
from measured import Header
from step_ours import detector_of, our_step, prepare
from step_work import FIRST, ITERATIONS, Work, draw_batch, timed
from torch.nn.parallel import DistributedDataParallel
from waits import Waits

from cissod_bench.contract.parts import Context
from cissod_bench.detector.cpu_operators import SWITCH

SIDES = ("soft-teacher", "mmdet", "ours")
IMAGES = ((1, 4), (4, 16))
EQUAL = 1e-3  # relative difference between the losses of two devices, at most


class Speed(msgspec.Struct, forbid_unknown_fields=True):
    """Steps of one side.

    Attributes:
        side: a method, or "mmdet".
        amp: number format: "off" (fp32), "fp16" or "bf16".
        images: labelled and unlabelled ones of an iteration.
        images_per_second: of both kinds.
        peak: MiB; on a GPU, of what torch allocated.
    """

    side: str
    amp: str
    images: tuple[int, int]
    images_per_second: float
    peak: float


class Idle(msgspec.Struct, forbid_unknown_fields=True):
    """How a method's step and the GPU wait for each other.

    Attributes:
        method: which.
        share: of a step's time in which the GPU does nothing; None on a CPU.
        synchronised: how often the host waits in a step, as torch's debug mode tells; None on a CPU.
        ours, mmdets: how often it would, by `Waits`, for our code and for mmdet's.
    """

    method: str
    share: float | None
    synchronised: int | None
    ours: int
    mmdets: int


class Mixed(msgspec.Struct, forbid_unknown_fields=True):
    """A method in mixed precision: how many of its steps had a finite loss."""

    method: str
    amp: str
    steps: int
    finite: int


class GpuRecord(Header, kw_only=True, forbid_unknown_fields=True):
    """All answers.

    Attributes:
        device: name of the GPU, or "cpu".
        preset, classes: the work.
        departures: changes of the preset that the device forced upon all parts.
        seconds: that all took.
        left_out: parts for which no time was left or which failed, with the reason.
        speed, idle, mixed: see there.
        equal: name of a loss -> its relative difference between the device and the CPU.
        alone: largest relative difference of a loss with and without a process group.
    """

    device: str
    preset: str
    classes: int
    departures: tuple[str, ...] = ()
    seconds: float = 0.0
    left_out: dict[str, str] = msgspec.field(default_factory=dict)
    speed: list[Speed] = msgspec.field(default_factory=list)
    idle: list[Idle] = msgspec.field(default_factory=list)
    equal: dict[str, float] = msgspec.field(default_factory=dict)
    alone: float | None = None
    mixed: list[Mixed] = msgspec.field(default_factory=list)


def speeds(amp: str, images: tuple[int, int], options: argparse.Namespace) -> list[Speed]:
    """Return what `step_time.compare` tells of the sides in one number format and batch size."""
    changes = [*options.changes, f"amp={amp}", f"labelled_per_gpu={images[0]}", f"unlabelled_per_gpu={images[1]}"]
    words = ["--preset", options.preset, "--device", options.device, "--threads", str(options.threads), "--pairs", "1"]
    words += ["--steps", str(options.steps), "--classes", str(options.classes), "--sides", *SIDES]
    words += [word for change in changes for word in ("--set", change)]
    record = step_time.compare(SIDES, step_time.parsed(words))
    return [Speed(side.name, amp, images, round(1000 * sum(images) / side.wall, 2), side.peak) for side in record.sides]


def work_of(options: argparse.Namespace, *changes: str) -> Work:
    """Return what a step of this process is to do, without thresholds."""
    return Work(options.preset, (*options.changes, *changes), options.classes, options.device, options.threads)


@lru_cache(8)
def _thresholds(work: bytes) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return prepare(msgspec.json.decode(work, type=Work), Path(folder), "weights.pth", batches=1).thresholds


def with_thresholds(work: Work) -> Work:
    """Return the work with thresholds that leave the random teacher its share of pseudo labels."""
    return msgspec.structs.replace(work, thresholds=_thresholds(msgspec.json.encode(work)))


def union(spans: Iterable[tuple[float, float]]) -> float:
    """Return how long at least one of some spans of time (begin, end) lasts."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(end - max(begin, until), 0.0)
        until = max(until, end)
    return total


def idle_share(step: Callable[[], Any]) -> float | None:
    """Return the share of a step's time in which the GPU does nothing; None without one."""
    if not torch.cuda.is_available():
        return None
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        clock = time.perf_counter()
        step()
        torch.cuda.synchronize()
        clock = time.perf_counter() - clock
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = union((event.time_range.start, event.time_range.end) for event in events)  # microseconds
    return round(1 - min(busy / 1e6 / clock, 1.0), 3)


def synchronised(step: Callable[[], Any]) -> int | None:
    """Return how often the host waits for the GPU in a step, as torch warns of it; None without one."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in told)


def idle(method: str, options: argparse.Namespace) -> Idle:
    """Return how a method's step and the GPU wait for each other."""
    work = with_thresholds(work_of(options))
    settings = work.settings()
    with patch.dict(os.environ, {SWITCH: "mmcv"}):  # a CPU's own operators never make a GPU wait, but no GPU has them
        step = our_step(method, settings, work, Path("unused"))
    batches = iter([draw_batch(number, settings, options.classes) for number in range(5)])
    again = lambda: step(next(batches), FIRST)  # noqa: E731
    again(), again()
    share, told = idle_share(again) if options.device != "cpu" else None, None
    if options.device != "cpu":
        told = synchronised(again)
    with Waits() as waits:
        again()
    return Idle(method, share, told, waits.of("ours"), waits.of("mmdet"))


def losses_on(device: str, options: argparse.Namespace, wrap: bool = False) -> dict[str, float]:
    """Return the losses of one step of Soft Teacher on 1 + 1 images in fp32, before the optimiser moves anything."""
    changes = ("amp=off", "labelled_per_gpu=1", "unlabelled_per_gpu=1")
    work = with_thresholds(msgspec.structs.replace(work_of(options, *changes), device="cpu"))
    settings = replace(work.settings(), box_threshold=1e6)
    detector: Any = detector_of("soft-teacher", settings, options.classes, torch.device(device))
    model = DistributedDataParallel(detector) if wrap else detector
    torch.manual_seed(0)
    losses = model(draw_batch(0, settings, options.classes), Context(FIRST, ITERATIONS))
    return {name: float(value) for name, value in losses.items()}


def differences(losses: dict[str, float], expected: dict[str, float]) -> dict[str, float]:
    """Return name -> relative difference of a loss; the names must be the same."""
    assert losses.keys() == expected.keys()
    return {name: abs(losses[name] - value) / max(abs(value), 1e-12) for name, value in expected.items()}


@contextmanager
def group_of_one(device: str) -> Iterator[None]:
    """Be the one process of a process group, NCCL's on a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        backend = "gloo" if device == "cpu" else "nccl"
        dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        try:
            dist.all_reduce(torch.ones(1, device=device))
            yield
        finally:
            dist.destroy_process_group()


def alone(options: argparse.Namespace) -> float:
    """Return by how much losses with a process group differ from those without, at most, as a share of these."""
    expected = losses_on(options.device, options)
    with group_of_one(options.device):
        return max(differences(losses_on(options.device, options, wrap=True), expected).values())


def mixed(method: str, amp: str, options: argparse.Namespace) -> Mixed:
    """Return how many of a method's steps in mixed precision had a finite loss."""
    work = with_thresholds(work_of(options, f"amp={amp}"))
    settings = work.settings()
    step = our_step(method, settings, work, Path("unused"))
    batch, device = draw_batch(0, settings, options.classes), torch.device(options.device)
    said = [timed(step, batch, FIRST + number, device)["loss"] for number in range(options.mixed_steps)]
    return Mixed(method, amp, len(said), int(torch.isfinite(torch.tensor(said)).sum()))


def parts_of(options: argparse.Namespace, record: GpuRecord) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the parts by name, most wanted first; each adds what it finds to the record."""
    on_gpu = options.device != "cpu"
    formats = ("off", "fp16", "bf16") if on_gpu else ("off",)

    def compare() -> None:
        there, here = losses_on(options.device, options), losses_on("cpu", options)
        record.equal = differences(there, here)
        assert max(record.equal.values()) <= EQUAL, record.equal

    def stand_alone() -> None:
        record.alone = alone(options)

    yield "equal", compare
    yield "alone", stand_alone
    for method in ("soft-teacher", "ours"):
        yield f"idle {method}", lambda method=method: record.idle.append(idle(method, options))
    for images in options.images:
        for amp in formats:
            title = f"speed {amp} {images[0]} + {images[1]}"
            yield title, lambda amp=amp, images=images: record.speed.extend(speeds(amp, images, options))
    for method in ("soft-teacher", *step_time.with_teacher()):
        amp = "fp16" if on_gpu else "bf16"
        yield f"mixed {method}", lambda method=method, amp=amp: record.mixed.append(mixed(method, amp, options))


def measure(options: argparse.Namespace) -> tuple[GpuRecord, Path]:
    """Do all parts for which there is time; write the record after each."""
    begun, busy = time.monotonic(), measured.load()
    name = torch.cuda.get_device_name() if options.device != "cpu" else "cpu"
    record = GpuRecord(
        created=measured.now(),
        commit=measured.commit_of(measured.ROOT),
        machine=measured.machine(busy),
        versions=measured.versions(),
        device=name,
        preset=options.preset,
        classes=options.classes,
        departures=work_of(options).departures(),
    )
    path = measured.write_record(options.records, f"gpu-{options.preset}-{options.device}", record)
    for part, do in parts_of(options, record):
        if time.monotonic() - begun > 60 * options.minutes:
            record.left_out[part] = "no time was left"
            continue
        clock = time.monotonic()
        try:
            do()
        except (Exception, SystemExit) as error:  # the other parts' answers are worth having
            record.left_out[part] = f"{type(error).__name__}: {str(error)[:400]}"
        print(f"{part}: {record.left_out.get(part, 'done')}, {time.monotonic() - clock:.1f} s", flush=True)
        record.seconds = round(time.monotonic() - begun, 1)
        path = measured.write_record(options.records, f"gpu-{options.preset}-{options.device}", record)
    return record, path


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="full", help="whose detector and images")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="KEY=VALUE of a setting; repeatable")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="rounds of a comparison that are counted")
    parser.add_argument("--mixed-steps", type=int, default=20, help="steps of every method in mixed precision")
    parser.add_argument("--classes", type=int, default=80, help="foreground classes")
    parser.add_argument("--minutes", type=float, default=5.0, help="after which no part begins")
    parser.add_argument("--records", type=Path, default=measured.RECORDS, help="folder of the record")
    options = parser.parse_args(arguments)
    options.images = IMAGES if options.device != "cpu" else ((1, 1),)
    return options


def main(arguments: Sequence[str] | None = None) -> GpuRecord:
    """Measure, record and print."""
    options = parsed(arguments)
    torch.set_num_threads(options.threads)
    record, path = measure(options)
    print(msgspec.json.format(msgspec.json.encode(record), indent=2).decode())
    print(f"Written: {path}")
    return record


if __name__ == "__main__":
    main()
