"""``cissod-bench make-splits``: draw the labelled and unlabelled annotation files of the sub-tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option
from cissod_bench.cli.file_progress import shown_progress
from cissod_bench.cli.split_summary import summary
from cissod_bench.errors import BenchError, DataFault, UsageFault
from cissod_bench.splitting.options import DRAW_OPTIONS, option_name

if TYPE_CHECKING:
    from cissod_bench.splitting.task import Task

F = TypeVar("F", bound=Callable[..., Any])


def _draw_option(name: str) -> Callable[[F], F]:
    """Return the option of a field of `DrawOptions`; what is not given is the task's own."""
    field = DRAW_OPTIONS[name]
    usual = "" if field.default is None else f", else {field.default if field.choices else f'{field.default:g}'}"
    return click.option(
        option_name(name),
        type=click.Choice(field.choices) if field.choices else field.kind,
        help=f"{field.document[0].upper()}{field.document[1:]}.  [default: the task's{usual}]",
    )


@click.command("make-splits", short_help="Draw the labelled and unlabelled annotation files of the sub-tasks.")
@click.option(
    "--task",
    "names",
    multiple=True,
    metavar="NAME",
    help="A sub-task or a .toml or .py file; repeatable.  [default: every one whose files are there]",
)
@click.option(
    "--split-seed",
    "seeds",
    multiple=True,
    type=click.IntRange(min=0),
    default=(0,),
    help="Seed of the draw; repeatable.  [default: 0]",
)
@_draw_option("cover")
@_draw_option("labelled_percent")
@_draw_option("min_instances")
@click.option(
    "--minority",
    "minority_file",
    type=click.Path(path_type=Path),
    help="File with the minority classes, one name per line.  [default: the task's]",
)
@_draw_option("dm_minority")
@_draw_option("unlabelled_percent")
@click.option("--force", is_flag=True, help="Draw again where a split is there.")
@click.option("--dry-run", is_flag=True, help="Read and draw, but write nothing.")
@data_root_option
@work_dir_option
@global_options
@pass_output
def command(
    output: Output,
    /,
    names: tuple[str, ...],
    seeds: tuple[int, ...],
    minority_file: Path | None,
    force: bool,
    dry_run: bool,
    data_root: Path,
    work_dir: Path,
    **given: Any,
) -> None:
    """Draw the labelled and unlabelled annotation files of the sub-tasks.

    Says how many boxes of each group were kept, dropped and hidden; -v says it of each class. Writes labelled.json,
    unlabelled.json, hidden.json and manifest.json below WORK_DIR/splits/TASK/seedK. The same split seed gives the same
    bytes. A split that is there is verified and kept. If it was drawn with another option than one given here, --force
    is needed. If one of several splits cannot be drawn, the others still are.
    """
    from cissod_bench.catalogue.task_files import find_task
    from cissod_bench.split_folders.ensure import draw_options, dry_split, ensure_split

    if minority_file is not None:
        given["minority"] = read_names(minority_file)
    tasks = [find_task(name) for name in dict.fromkeys(names)] or _available(output, data_root)
    chosen = [name for name, value in given.items() if value is not None]
    planned = [(task, draw_options(task, split_seed=seed, **given)) for task in tasks for seed in dict.fromkeys(seeds)]
    results = []
    faults: dict[str, BenchError] = {}
    for task, options in planned:
        try:
            with shown_progress(output) as progress:
                if dry_run:
                    drawn = dry_split(task, data_root, work_dir, options, progress=progress)
                else:
                    drawn = ensure_split(
                        task, data_root, work_dir, options, given=chosen, force=force, progress=progress, say=output.say
                    )
        except (DataFault, UsageFault) as fault:  # of one task's data or options; the other splits are still drawn
            faults[f"{task.name}, split seed {options.split_seed}"] = fault
            continue
        output.tell(summary(drawn, dry_run=dry_run, every_class=output.verbosity > 0))
        results.append({"dir": str(drawn.folder), **drawn.manifest.document})
    if results:
        output.result(results)
    _raise(faults, len(planned))


def _raise(faults: Mapping[str, BenchError], planned: int) -> None:
    """Raise the faults of splits, if there are any, as one of the worst one's kind."""
    if not faults:
        return
    worst = max(faults.values(), key=lambda fault: fault.exit_code)
    if planned == 1:
        raise worst
    listed = "".join(f"\n{split}: {fault}" for split, fault in faults.items())
    raise type(worst)(
        f"{len(faults)} of {planned} splits could not be drawn:{listed}",
        remedy="mend what each of them names and repeat the command; splits that are there are kept",
    )


def _available(output: Output, data_root: Path) -> list[Task]:
    """Return every task whose files are there; tell what the others lack."""
    from cissod_bench.catalogue import list_tasks, load_task
    from cissod_bench.split_folders.ensure import missing_inputs

    found = []
    for name in list_tasks():
        task = load_task(name)
        missing = missing_inputs(task, data_root)
        if not missing:
            found.append(task)
        else:
            output.warn(f"{name} is left out; these files are missing:\n" + "\n".join(f"  {line}" for line in missing))
    if not found:
        raise DataFault(f"No task's files are below {data_root}.", remedy="--data-root says where data lies")
    return found


def read_names(path: Path) -> tuple[str, ...]:
    """Return the lines of a file of class names, without empty ones; blanks at a name's end belong to it.

    Raises:
        UsageFault: the file cannot be read, is not UTF-8 or names nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows' editors begin with a byte order mark
    except OSError as error:
        message = f"--minority {path} cannot be read: {error.strerror}."
        raise UsageFault(message, remedy="name a file with one class name a line") from None
    except UnicodeDecodeError as error:
        raise UsageFault(f"--minority {path} is not UTF-8: byte {error.start}.", remedy="save it as UTF-8") from None
    names = tuple(line for line in lines if line.strip())
    if not names:
        message = f"--minority {path} names no class; one name a line is expected."
        raise UsageFault(message, remedy="write the minority classes into it, one a line")
    return names
