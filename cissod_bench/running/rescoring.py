"""A checkpoint of a run scored again: the last one, the best while training, or any file of the run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from cissod_bench.catalogue import method_files, task_files
from cissod_bench.contract.method import Method
from cissod_bench.contract.settings import Settings
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.records import run_folder as runs
from cissod_bench.records.record import RunRecord
from cissod_bench.running import preflight
from cissod_bench.running.assembly import pick_device, prepare, scored_images
from cissod_bench.running.plan import Plan, make_plan
from cissod_bench.running.progress import Bar
from cissod_bench.running.turned import settle_readings
from cissod_bench.scoring import evaluate
from cissod_bench.scoring.evaluate import Scores
from cissod_bench.splitting.task import Task
from cissod_bench.training.predict import MODELS, labelled_images, predicted_texts, present
from cissod_bench.training.result_files import write_texts

Say = Callable[[str], None]
NAMED = {"last": runs.CHECKPOINT, "best": runs.BEST_CHECKPOINT}
"""What a checkpoint of a run is called on the command line -> its file."""


def word_of(command: Sequence[str], option: str) -> str | None:
    """Return the value of an option in a command line, None where it has none."""
    for word, following in zip(command, [*command[1:], ""], strict=False):
        if word == option and following:
            return following
        if word.startswith(f"{option}="):
            return word[len(option) + 1 :]
    return None


def checkpoint_of(folder: Path, name: str) -> Path:
    """Return the file of a checkpoint.

    Args:
        folder: of the run.
        name: "last", "best", or a file, of that folder if it is in no other.

    Raises:
        DataFault: there is no such file; names those there are.
    """
    path = folder / NAMED[name] if name in NAMED else Path(name)
    if name not in NAMED and not path.is_file():
        path = folder / name
    if path.is_file():
        return path
    there = sorted(file.name for file in folder.glob("checkpoint*.pth"))
    raise DataFault(
        f"{path}: there is no such checkpoint. {folder} holds {', '.join(there) or 'none'}.",
        remedy="name one that is there; a best one is kept by runs with --set eval_every=ITERATIONS",
    )


@contextmanager
def read_for_use(folder: Path) -> Iterator[None]:
    """Read a checkpoint within the block: the remedies of what is wrong with it are for who goes on training.

    Args:
        folder: of the run.

    Raises:
        DataFault, UsageFault: as the block does, with a remedy for who uses the run.
    """
    try:
        yield
    except (DataFault, UsageFault) as fault:
        remedy = f"name a readable checkpoint of {folder}: --checkpoint last, best or FILE"
        raise type(fault)(fault.message, remedy=remedy) from fault


def named_parts(record: RunRecord, task: str | None, method: str | None) -> tuple[Task, Method]:
    """Return the task and the method of a run.

    Args:
        record: of the run.
        task: a name or file; None takes that of the run's own command.
        method: likewise.

    Raises:
        UsageFault: there is no such task or method.
    """
    return (
        task_files.find_task(task or word_of(record.command, "--task") or record.task),
        method_files.find_method(method or word_of(record.command, "--method") or record.method),
    )


def recorded_settings(record: RunRecord, base: Settings) -> Settings:
    """Return the settings of a run; what its record does not name, because it is older, is the preset's.

    Args:
        record: of the run.
        base: of its preset, today.
    """
    return msgspec.convert({**asdict(base), **record.settings}, Settings)


def check_named(record: RunRecord, folder: Path, task: Task, method: Method) -> None:
    """Refuse a task or a method that is not the run's.

    Args:
        record: of the run.
        folder: of the run.
        task: that was named.
        method: that was named.

    Raises:
        UsageFault: one of them is another.
    """
    for what, own, other in (("task", record.task, task.name), ("method", record.method, method.name)):
        if own != other:
            raise UsageFault(
                f"{folder} holds a run of the {what} {own!r}; named is {other!r}.",
                remedy=f"leave --{what} out, or name the file that the run was started with",
            )


def plan_of(record: RunRecord, folder: Path, task: Task, method: Method, *, data_root: Path, work_dir: Path) -> Plan:
    """Return the plan of a run that was recorded, wherever its folder lies now.

    Raises:
        UsageFault: task, method or split are not those of the run.
    """
    check_named(record, folder, task, method)
    plan = make_plan(
        task,
        method,
        data_root=data_root,
        work_dir=work_dir,
        variant=record.variant,
        preset_name=record.preset,
        profile=record.profile,
        split_seed=record.split_seed,
        seed=record.seed,
    )
    if plan.split_sha256 != record.split_sha256:
        raise UsageFault(
            f"{folder} holds a run on another draw of the split than {plan.split}.",
            remedy="pass the --work-dir and --data-root that the run was started with",
        )
    return replace(plan, folder=folder, settings=recorded_settings(record, plan.settings))


def rescore(
    plan: Plan, record: RunRecord, file: Path, *, say: Say, quiet: bool = False
) -> tuple[int, dict[str, Scores]]:
    """Return the iteration of a checkpoint, and the scores of its teacher and student on the whole scored images.

    Nothing in the run's folder changes.

    Args:
        plan: of the run.
        record: of the run.
        file: the checkpoint.
        say: takes lines for the user.
        quiet: show no progress.

    Raises:
        DataFault: the file is not sound, or an image cannot be read.
        UsageFault: it belongs to another run.
    """
    scored, category_ids = scored_images(plan)
    # Detections are made in full precision, so a machine without the run's number format will do.
    training = prepare(replace(plan, settings=replace(plan.settings, amp="off")), pick_device(), scored)
    training.file, training.identity = file, plan.identity()  # whatever the number of processes
    scored = settle_readings(plan, replace(record), training, scored, say)
    absent, settings = plan.task.absent, plan.settings
    preflight.check_scored(scored, absent)
    labelled = training.dataset.sources[0]
    training.detector.parts.begin_run(
        partial(labelled_images, labelled, settings, on_unread=training.unread.passed_over)
    )
    with read_for_use(plan.folder):
        training.resume()
    total = len(MODELS) * len(present(scored, absent))
    with TemporaryDirectory() as place, Bar("predict", total, stream=sys.stderr, quiet=quiet) as bar:
        paths = [Path(place) / f"{model}.json.gz" for model in MODELS]
        texts = predicted_texts(training.detector, scored, settings, category_ids, absent=absent, progress=bar.advance)
        with closing(texts):
            write_texts(paths, texts)
        return training.position.iteration, dict(zip(MODELS, _scores(plan, paths), strict=True))


def _scores(plan: Plan, paths: Sequence[Path]) -> list[Scores]:
    task = plan.task
    return evaluate.score_several(
        plan.val, list(paths), groups=plan.groups, max_dets=task.max_dets, metric=task.metric, check_boxes=False
    )
