"""``cissod-bench make-splits``: draw the labelled and unlabelled annotation files of the sub-tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option
from cissod_bench.controls import shown_name
from cissod_bench.errors import BenchError, DataFault, UsageFault
from cissod_bench.splitting.options import DRAW_OPTIONS, option_name

if TYPE_CHECKING:
    from cissod_bench.files.json_objects import Progress
    from cissod_bench.split_folders.ensure import SplitOnDisk
    from cissod_bench.splitting.manifest import Manifest
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


def summary(drawn: SplitOnDisk, *, dry_run: bool = False, every_class: bool = False) -> str:
    """Return what was drawn as a few lines of text, with a line a class if asked for."""
    from cissod_bench.split_folders.counts import count_lines, loss_lines, percent_lines, short_line

    manifest = drawn.manifest
    counts, boxes = manifest.counts, manifest.boxes
    new = "imported" if manifest.imported else "drawn" if manifest.was_drawn else "your parts, nothing drawn"
    hidden = f"{boxes.hidden:>11,}" if manifest.hidden_known else f"{'unknown':>11}"
    how = "not written" if dry_run else new if drawn.fresh else "already there, hashes verified"
    named = [name for name in counts if name not in ("labelled", "unlabelled") and counts[name]]
    parts = f"  ({' + '.join(f'{name} {counts[name]:,}' for name in named)})" if named else ""
    lines = [
        f"{manifest.task}, split seed {manifest.split_seed}: {drawn.folder} ({how})",
        f"  D_l  {counts['labelled']:>11,} images  {boxes.labelled:>11,} boxes{parts}",
        f"  D_u  {counts['unlabelled']:>11,} images  {hidden} hidden boxes",
    ]
    lines += [f"  {line}" for line in count_lines(manifest, every_class=every_class)]
    lines += [f"  {line}" for line in loss_lines(manifest)]
    lines.append(f"  {short_line(manifest)}")
    lines.append(f"  imbalance in D_l {_ratio(manifest)}")
    lines += _other_options(drawn)
    lines += [f"  {line}" for line in percent_lines(manifest)]
    lines += _policy(manifest)
    lines += normalised_lines(manifest)
    lines += [f"  in no part: {count:,} images {reason}" for reason, count in manifest.left_out.items()]
    lines.append(f"  sha256 {manifest.split_sha256 or '- (nothing written)'}")
    lines.append(f"  {drawn.seconds:.1f} s, peak memory {peak_memory() / 1e6:,.0f} MB")
    return "\n".join(lines)


def _other_options(drawn: SplitOnDisk) -> list[str]:
    """Return a line on options of a split found there that are not the task's own, if there are any."""
    if drawn.manifest.imported:
        return [] if drawn.fresh else ["  imported, drawn by others; --force draws one in its place"]
    told = [
        f"{name} {', '.join(map(shown_name, there)) if isinstance(there, list) else there}"
        for name, (there, _) in drawn.differing.items()
    ]
    return [f"  drawn with {', '.join(told)}; --force draws it again with the task's own"] if told else []


def _ratio(manifest: Manifest) -> str:
    boxes = {name: counts.boxes for name, counts in manifest.per_class.items() if counts.boxes}
    if not boxes:
        return "- (no class has a box)"
    most, least = max(boxes, key=boxes.__getitem__), min(boxes, key=boxes.__getitem__)
    without = len(manifest.per_class) - len(boxes)
    none = f"; classes without a box: {without}" if without else ""
    ends = ", ".join(f"{shown_name(name)} {boxes[name]:,}" for name in (most, least))
    return f"{manifest.imbalance:,} : 1 ({ends}{none})"


_POLICY = {
    "degenerate": "without area, dropped",
    "outside": "outside their image, dropped",
    "clipped": "clipped to their image",
    "crowd": "crowd regions, not counted",
}


def _policy(manifest: Manifest) -> list[str]:
    """Return a line on odd boxes, if there are any."""
    told = [f"{count:,} {_POLICY.get(rule, rule)}" for rule, count in manifest.box_policy.items() if count]
    if manifest.boxes.ignored:
        told.append(f"{manifest.boxes.ignored:,} of the minority kept in D_m as ignore regions")
    return [f"  boxes: {'; '.join(told)}"] if told else []


def normalised_lines(manifest: Manifest) -> list[str]:
    """Return a line on each kind of record that was read as it is meant, not as it is written."""
    from cissod_bench.annotations.lenient import WORDS

    return [
        f"  normalised in {role}: {count:,} {WORDS.get(kind, kind)}"
        for role, kinds in manifest.normalised.items()
        for kind, count in kinds.items()
    ]


def peak_memory() -> int:
    """Return the most memory this process has held, bytes; 0 where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def shown_progress(output: Output) -> Iterator[Progress | None]:
    """Show a bar a file while it is read or written, where a terminal shows it; else a line when it begins."""
    if output.verbosity < 0:
        yield None
        return
    if not sys.stderr.isatty():
        begun: set[str] = set()

        def begins(what: str, done: int, total: int) -> None:
            if what not in begun:
                begun.add(what)
                output.say(what)

        yield begins
        return
    from rich.progress import Progress as Bars

    from cissod_bench.terminal import Console

    with Bars(console=Console(stderr=True), transient=True) as bars:
        rows: dict[str, Any] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = bars.add_task(what, total=total)
            bars.update(rows[what], completed=done)

        yield told
