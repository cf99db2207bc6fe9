"""cissod-bench evaluate: the AP of a predictions file or a run's checkpoint, for all classes and by class groups."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option

if TYPE_CHECKING:
    from cissod_bench.scoring.evaluate import Scores
    from cissod_bench.splitting.manifest import Manifest


@click.command("evaluate", short_help="Score a predictions file, or a checkpoint of a run.")
@click.option("--predictions", type=click.Path(path_type=Path), help="COCO result file, .json or .json.gz.")
@click.option(
    "--split", type=click.Path(path_type=Path), help="Split folder; names the groups and the validation file."
)
@click.option(
    "--run", "run", type=click.Path(path_type=Path), help="Run folder, one of whose checkpoints is scored instead."
)
@click.option("--checkpoint", metavar="last|best|FILE", help="With --run: which one.  [default: last]")
@click.option(
    "--method", metavar="NAME|FILE.py", help="With --run: its method.  [default: that of the run's own command]"
)
@click.option(
    "--task",
    "task_name",
    metavar="NAME|FILE",
    help="The split's task, which must still describe it.  [default: of the split's name; a FILE.toml is looked for "
    "here and in --data-root]",
)
@click.option(
    "--ground-truth",
    type=click.Path(path_type=Path),
    help="Validation file to score against instead of the split's own.",
)
@click.option(
    "--engine",
    default="hotcoco",
    show_default=True,
    metavar="hotcoco|pycocotools|lvis",
    help="Scorer; the numbers are equal. pycocotools knows COCO's rules only, lvis LVIS's only.",
)
@click.option(
    "--groups",
    "view",
    default="split",
    show_default=True,
    metavar="split|official",
    help="Class groups: the split's, by its labelled images, or those of the data set's authors.",
)
@click.option(
    "--max-dets",
    type=int,
    help="Scored detections per image and class; by LVIS's rules per image.  [default: the split's]",
)
@click.option(
    "--score-floor",
    type=float,
    help="Leave out detections at or below this score.  [default: the split's, if it names one]",
)
@click.option("--per-class", is_flag=True, help="Print the AP of every class; so does -v.")
@data_root_option
@work_dir_option
@global_options
@pass_output
def command(
    output: Output,
    predictions: Path | None,
    split: Path | None,
    run: Path | None,
    checkpoint: str | None,
    method: str | None,
    task_name: str | None,
    ground_truth: Path | None,
    engine: str,
    view: str,
    max_dets: int | None,
    score_floor: float | None,
    per_class: bool,
    data_root: Path,
    work_dir: Path,
) -> None:
    """Score predictions against the validation file of a split: AP of all classes and of each group.

    Predictions name an image by its id in the validation file, or all of them by its file name or that without ending.

    The split's task says whether COCO's or LVIS's rules count. If the task has changed since the split was drawn, the
    split is refused, unless --ground-truth names the file to score against. The paper's LVIS table keeps 100 detections
    per image above .05; LVIS's own protocol is --max-dets 300 --score-floor 0.0001.

    With --run a checkpoint of that run predicts first: teacher and student are scored by the rules of the run.
    """
    others: dict[str, object] = {"--ground-truth": ground_truth, "--max-dets": max_dets, "--score-floor": score_floor}
    others |= {"--groups": None if view == "split" else view, "--engine": None if engine == "hotcoco" else engine}
    if run is not None:
        _refuse("--run", {"--predictions": predictions, "--split": split, **others})
        from cissod_bench.cli.evaluate_run import evaluate_run

        name = checkpoint or "last"
        evaluate_run(output, run, name, task=task_name, method=method, data_root=data_root, work_dir=work_dir)
        return
    if predictions is None or split is None:
        from cissod_bench.errors import UsageFault

        lacking = "--predictions" if predictions is None else "--split"
        message = f"evaluate needs --predictions and --split, or --run. Without --run, {lacking} is missing."
        raise UsageFault(message, remedy="cissod-bench evaluate --help")
    _refuse("--predictions", {"--checkpoint": checkpoint, "--method": method})
    from cissod_bench.scoring.evaluate import score
    from cissod_bench.splitting.manifest import read_manifest

    manifest = read_manifest(split)
    groups = _groups(manifest, split, view)
    truth = ground_truth or _validation_file(manifest, split, data_root, work_dir)
    if ground_truth is None or task_name is not None:
        _check_task(output, manifest, split, task_name, data_root, work_dir)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = score(
            truth,
            predictions,
            groups=groups,
            engine=engine,
            max_dets=manifest.max_dets if max_dets is None else max_dets,
            score_floor=manifest.score_floor if score_floor is None else score_floor,
            metric=manifest.metric,
        )
    for warning in caught:
        output.warn(str(warning.message))
    output.result({**scores.columns, "per_class": dict(scores.per_class), "engine": scores.engine})
    if not output.json:
        title = f"{manifest.title}, AP in points ({scores.engine})"
        _print(
            scores, f"{title}, {view} groups" if view != "split" else title, groups, per_class or output.verbosity > 0
        )


def _refuse(option: str, others: Mapping[str, object]) -> None:
    """Refuse options that do not go with another.

    Raises:
        UsageFault: one of them was given.
    """
    from cissod_bench.errors import UsageFault

    for name, value in others.items():
        if value is not None:
            raise UsageFault(f"evaluate takes {name} or {option}, not both.", remedy=f"leave {name} out")


def _groups(manifest: Manifest, split: Path, view: str) -> Mapping[str, Sequence[str]]:
    """Return the class groups of a view: "split" for those of the draw, else one of the manifest's further views.

    Raises:
        UsageFault: the split has no such view.
    """
    from cissod_bench.errors import UsageFault

    views: dict[str, Mapping[str, Sequence[str]]] = {**manifest.views, "split": manifest.groups}
    if view not in views:
        raise UsageFault(
            f"{split} has no class groups {view!r}; it has: {', '.join(views)}. Only LVIS has official ones.",
            remedy="leave --groups out for the groups of the split",
        )
    return views[view]


def _validation_file(manifest: Manifest, split: Path, data_root: Path, work_dir: Path) -> Path:
    """Return the file the split's manifest names, after comparing its hash.

    Raises:
        DataFault: it is not there or is another one than the split was drawn for.
    """
    from cissod_bench.errors import DataFault
    from cissod_bench.files.hashing import file_sha256
    from cissod_bench.split_folders.listing import data_roots

    roots, path = data_roots(split, manifest, data_root, work_dir), manifest.val.path
    val = next((root / path for root in roots if (root / path).is_file()), None)
    if val is None:
        toy = roots != [data_root]
        raise DataFault(
            f"{split}: the validation file {roots[0] / path} does not exist.",
            remedy=f"cissod-bench make-splits --task {manifest.task}" if toy else "pass --data-root or --ground-truth",
        )
    if file_sha256(val) != manifest.val.sha256:
        raise DataFault(
            f"{val}: not the file that {split} was drawn for; its sha256 differs from the manifest's.",
            remedy="pass --ground-truth FILE to score against it all the same",
        )
    return val


def _check_task(
    output: Output, manifest: Manifest, split: Path, task_name: str | None, data_root: Path, work_dir: Path
) -> None:
    """Refuse a split that is not what its task describes now, as far as the task is at hand.

    Raises:
        UsageFault: the task states something else than when the split was made, or --task names another task.
        DataFault: one of the task's annotation files is another one.
    """
    from cissod_bench.errors import UsageFault
    from cissod_bench.split_folders.ensure import check_still_described
    from cissod_bench.split_folders.listing import data_roots, task_of

    task = task_of(manifest, data_root, task_name)
    if task is None:
        output.warn(
            f"The task file {manifest.task}.toml is neither here nor in {data_root}; whether it still describes "
            f"{split} was not checked. --task FILE.toml names it."
        )
        return
    if task.name != manifest.task:
        raise UsageFault(
            f"{split} is a split of the task {manifest.task!r}; --task names {task.name!r}.",
            remedy="leave --task out",
        )
    check_still_described(split, manifest, task, data_roots(split, manifest, data_root, work_dir), data_root, work_dir)


def _print(scores: Scores, title: str, groups: Mapping[str, Sequence[str]], per_class: bool) -> None:
    from rich.table import Table

    from cissod_bench.terminal import Console, Text, name_text

    def points(value: float | None) -> str:
        return "n/a" if value is None else f"{value:.1f}"

    console = Console()
    table = Table(*scores.columns, "AP50", "AP75")
    table.add_row(*map(points, scores.columns.values()), points(scores.ap50), points(scores.ap75))
    console.print(Text(title, style="bold"))
    console.print(table)
    if per_class:
        classes = Table("class", "group", "AP")
        for group, names in groups.items():
            for name in names:
                classes.add_row(name_text(name), name_text(group), points(scores.per_class[name]))
        console.print(classes)
