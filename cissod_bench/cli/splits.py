"""``cissod-bench splits``: the splits that were drawn or imported, one command a question about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cissod_bench.cli.common import F, Output, data_root_option, global_options, pass_output, work_dir_option
from cissod_bench.cli.splits_export import export_command
from cissod_bench.errors import DataFault, UsageFault

_NONE = "cissod-bench make-splits draws the splits of every task whose files are there"


@click.group("splits", short_help="List, show, verify, compare, plot, import and export splits.")
@global_options
def command() -> None:
    """List, show, verify, compare, plot, import and export splits. make-splits draws them."""


command.add_command(export_command)


def split_seed_option(help_text: str) -> Callable[[F], F]:
    """Return the option --split-seed."""
    return click.option("--split-seed", type=click.IntRange(min=0), default=0, show_default=True, help=help_text)


@command.command("list", short_help="The splits below --work-dir.")
@work_dir_option
@global_options
@pass_output
def list_command(output: Output, *, work_dir: Path) -> None:
    """List the splits below --work-dir: task, seed, images, hash, options that are not the task's own.

    A folder that holds no sound manifest is listed with what is wrong with it; `splits verify` looks at the files too.
    """
    from cissod_bench.cli.split_tables import print_list
    from cissod_bench.split_folders.listing import find_splits, row

    rows = [row(split) for split in find_splits(work_dir)]
    output.result(rows)
    if not output.json:
        if rows:
            print_list(rows)
        else:
            output.tell(f"There is no split below {work_dir}; {_NONE}.")


@command.command("show", short_help="What is in a split.")
@click.argument("place", metavar="TASK|FOLDER")
@split_seed_option("Which split of TASK.")
@work_dir_option
@global_options
@pass_output
def show_command(output: Output, *, place: str, split_seed: int, work_dir: Path) -> None:
    """Show what is in a split: counts, groups, every class, box policy, inputs, hashes. --json prints the manifest."""
    from cissod_bench.cli.split_tables import print_split
    from cissod_bench.split_folders.listing import find_split
    from cissod_bench.splitting.manifest import read_manifest

    folder = find_split(place, split_seed, work_dir)
    manifest = read_manifest(folder)
    output.result({"dir": str(folder), **manifest.document})
    if not output.json:
        print_split(folder, manifest)


@command.command("verify", short_help="Are the files those that were drawn, and is it a split?")
@click.argument("places", metavar="[TASK|FOLDER]...", nargs=-1)
@data_root_option
@work_dir_option
@global_options
@pass_output
def verify_command(output: Output, *, places: tuple[str, ...], data_root: Path, work_dir: Path) -> None:
    """Verify splits (all seeds of a TASK; all splits below --work-dir if none is named).

    Compares the files with their hashes, then counts from the files alone: D_l and D_u must share no image and no image
    file, D_u must show no box, and groups, counts and ids must be those of the manifest. If the validation file is
    below --data-root, its images must be in neither. Tells every fault, then ends with exit code 3.
    """
    from cissod_bench.cli.file_progress import shown_progress
    from cissod_bench.split_folders.listing import find_splits, scored_file, splits_of
    from cissod_bench.split_folders.verify import split_faults

    folders = [folder for place in places for folder in splits_of(place, work_dir)]
    folders = list(dict.fromkeys(folders)) or [split.folder for split in find_splits(work_dir)]
    if not folders:
        raise DataFault(f"There is no split below {work_dir}.", remedy=_NONE)
    results: list[dict[str, Any]] = []
    for folder in folders:
        root, val = scored_file(folder, data_root, work_dir)
        with shown_progress(output) as progress:
            faults = split_faults(folder, progress, root=root, val=val)
        results.append({"dir": str(folder), "sound": not faults, "faults": faults, "val": str(val) if val else None})
        alone = "" if val else " (the validation file it was made for is not below --data-root: not compared)"
        output.tell(f"{folder}: {f'{len(faults)} faults' if faults else 'sound'}{alone}")
    output.result(results)
    broken = [result for result in results if result["faults"]]
    if broken:
        listed = "".join(f"\n  {fault}" for result in broken for fault in result["faults"])
        raise DataFault(
            f"{len(broken)} of {len(results)} splits are broken:{listed}",
            remedy="cissod-bench make-splits --force draws a split again",
        )


@command.command("diff", short_help="What differs between two splits.")
@click.argument("places", metavar="A [B]", nargs=-1, required=True)
@click.option(
    "--split-seed",
    "seeds",
    multiple=True,
    type=click.IntRange(min=0),
    help="Seed of A and seed of B where they are tasks; one for both.  [default: 0]",
)
@work_dir_option
@global_options
@pass_output
@click.pass_context
def diff_command(
    ctx: click.Context, output: Output, *, places: tuple[str, ...], seeds: tuple[int, ...], work_dir: Path
) -> None:
    """Compare two splits: options, inputs, groups, counts, ids of images and boxes, records.

    A and B are split folders or tasks; one task with --split-seed twice compares two seeds of it. Ends with exit code 0
    if the splits are equal, 1 if they differ.
    """
    from dataclasses import asdict

    from cissod_bench.cli.file_progress import shown_progress
    from cissod_bench.cli.split_tables import print_difference
    from cissod_bench.split_folders.compare import compare
    from cissod_bench.split_folders.listing import find_split

    if len(places) > 2 or len(seeds) > 2 or (len(places) == 1 and len(seeds) != 2):
        raise UsageFault(
            f"Two splits are compared: two places, or one task with --split-seed twice. Got {len(places)} places and "
            f"{len(seeds)} seeds.",
            remedy="cissod-bench splits diff TASK --split-seed 0 --split-seed 1",
        )
    seeds = seeds or (0,)
    a, b = find_split(places[0], seeds[0], work_dir), find_split(places[-1], seeds[-1], work_dir)
    with shown_progress(output) as progress:
        difference = compare(a, b, progress)
    output.result({"a": str(a), "b": str(b), "equal": difference.equal, **asdict(difference)})
    if not output.json:
        print_difference(a, b, difference)
    ctx.exit(0 if difference.equal else 1)


@command.command("plot", short_help="Boxes per class: in the data set, in D_l, hidden in D_u (Fig. 4).")
@click.argument("places", metavar="[TASK|FOLDER]...", nargs=-1)
@split_seed_option("Which split of each task.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the pictures.  [default: WORK_DIR/reports]")
@click.option("--format", "formats", default="png,svg", show_default=True, help="Comma-separated: png, svg, pdf, csv.")
@work_dir_option
@global_options
@pass_output
def plot_command(
    output: Output, *, places: tuple[str, ...], split_seed: int, out: Path | None, formats: str, work_dir: Path
) -> None:
    """Plot the distribution of boxes over classes of splits side by side (Fig. 4); of every task if none is named."""
    from cissod_bench.figures.distributions import plot_distributions
    from cissod_bench.reporting.box_counts import paper_order
    from cissod_bench.split_folders.listing import find_split, find_splits
    from cissod_bench.splitting.manifest import read_manifest

    if places:
        manifests = [read_manifest(find_split(place, split_seed, work_dir)) for place in dict.fromkeys(places)]
    else:
        splits = find_splits(work_dir)
        for split in splits:
            if split.manifest is None:
                output.warn(f"{split.folder} is left out. {split.fault}")
        readable = [split.manifest for split in splits if split.manifest is not None]
        manifests = paper_order([manifest for manifest in readable if manifest.split_seed == split_seed])
    if not manifests:
        raise DataFault(f"There is no split with split seed {split_seed} below {work_dir}.", remedy=_NONE)
    named = tuple(name.strip() for name in formats.split(","))
    files = plot_distributions(manifests, out or work_dir / "reports", named)
    output.result([str(file) for file in files])
    output.tell(f"Written: {', '.join(map(str, files))}")


@command.command("import", short_help="Make a split of annotation files that others published.")
@click.option(
    "--task", "name", required=True, metavar="NAME", help="The sub-task they belong to, or a .toml or .py file."
)
@click.option("--labelled", type=click.Path(path_type=Path), required=True, help="Annotation file of D_l.")
@click.option("--unlabelled", type=click.Path(path_type=Path), required=True, help="Annotation file of D_u's images.")
@click.option(
    "--hidden",
    type=click.Path(path_type=Path),
    help="Annotation file with the boxes of D_u.  [default: the task's own training file]",
)
@split_seed_option("Under which seed it is kept.")
@click.option("--force", is_flag=True, help="Write it in place of a split that is there.")
@data_root_option
@work_dir_option
@global_options
@pass_output
def import_command(
    output: Output,
    *,
    name: str,
    labelled: Path,
    unlabelled: Path,
    hidden: Path | None,
    split_seed: int,
    force: bool,
    data_root: Path,
    work_dir: Path,
) -> None:
    """Make a split of annotation files that others published, so that `run` trains on them.

    Classes must be those of the task's val file, D_l and D_u must share no image, and where the task's own training
    file is at hand every image must stand in it. Boxes in the unlabelled file are never used. Groups are made by the
    task's rule. The manifest says that the split was imported, and from which files.
    """
    from cissod_bench.catalogue.task_files import find_task
    from cissod_bench.cli.file_progress import shown_progress
    from cissod_bench.cli.split_summary import summary
    from cissod_bench.split_folders.import_files import Given
    from cissod_bench.split_folders.importing import import_split

    given = Given(labelled=labelled, unlabelled=unlabelled, hidden=hidden)
    with shown_progress(output) as progress:
        made = import_split(
            find_task(name),
            given,
            data_root,
            work_dir,
            split_seed=split_seed,
            force=force,
            progress=progress,
            say=output.say,
        )
    for warning in made.warnings:
        output.warn(warning)
    output.tell(summary(made.split, every_class=output.verbosity > 0))
    output.result({"dir": str(made.split.folder), **made.split.manifest.document})
