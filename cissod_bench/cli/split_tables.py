"""What ``cissod-bench splits`` prints: tables of splits, of one split, and of what two of them differ in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cissod_bench.cli.split_summary import odd_boxes
from cissod_bench.controls import shown_name

if TYPE_CHECKING:
    from cissod_bench.split_folders.compare import IdsDiffer, SplitsDiffer
    from cissod_bench.splitting.manifest import Manifest
    from cissod_bench.terminal import Console

_HASH = 12  # hexadecimal digits of a hash that tell splits apart


def print_list(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of splits, and below it the folders that hold none.

    Args:
        rows: from ``listing.row``.
    """
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    console = Console()
    table = Table("task", "seed", "images in D_l", "in D_u", "sha256", "other options")
    for column in table.columns[1:4]:
        column.justify = "right"
    table.columns[5].overflow = "fold"
    for row in rows:
        if not row["fault"]:
            how = "imported" if row["imported"] else _options(row["options"])
            numbers = (str(row["split_seed"]), f"{row['labelled']:,}", f"{row['unlabelled']:,}")
            table.add_row(Text(row["task"]), *numbers, row["split_sha256"][:_HASH], Text(how))
    if table.row_count:
        console.print(table)
    for row in rows:
        if row["fault"]:
            console.print(Text(f"broken: {row['fault']}", "bold red"), soft_wrap=True)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in options.items()) or "-"


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(shown_name(str(name)) for name in value[:3]) + (
            f" and {len(value) - 3} more" if len(value) > 3 else ""
        )
    return str(value)


def print_split(folder: Path, manifest: Manifest) -> None:
    """Print what a manifest says: facts, groups and every class."""
    from cissod_bench.split_folders.counts import COLUMNS, group_counts
    from cissod_bench.terminal import Console, Text, name_text

    console = Console()
    for key, text in _facts(folder, manifest):  # unwrapped, so that a hash can be copied in one piece
        console.print(Text.assemble((f"{key:<17}", "dim"), text), soft_wrap=True)
    keys = [key for key in COLUMNS if any(counts[key] for _, _, counts in group_counts(manifest))]
    groups = _table(("group", "classes", *(COLUMNS[key] for key in keys)))
    for group, number, counts in group_counts(manifest):
        groups.add_row(name_text(group), _number(number), *(_number(counts[key]) for key in keys))
    console.print(groups)
    _print_classes(console, manifest)


def _facts(folder: Path, manifest: Manifest) -> Iterable[tuple[str, str]]:
    """Yield name and value of each line above the tables."""
    from cissod_bench.split_folders.counts import loss_lines, short_classes, short_line

    counts, boxes = manifest.counts, manifest.boxes
    hidden = _number(boxes.hidden if manifest.hidden_known else None)
    parts = [f"{name} {counts[name]:,}" for name in counts if name not in ("labelled", "unlabelled") and counts[name]]
    yield "split", f"{manifest.title} ({manifest.task}), split seed {manifest.split_seed}"
    yield "folder", str(folder)
    yield "D_l", f"{counts['labelled']:,} images, {boxes.labelled:,} boxes{_bracketed(' + '.join(parts))}"
    yield "D_u", f"{counts['unlabelled']:,} images, {hidden} hidden boxes"
    if boxes.ignored:
        yield "ignore regions", f"{boxes.ignored:,} minority boxes of D_m"
    for reason, count in manifest.left_out.items():
        yield "in no part", f"{count:,} image{'s' * (count != 1)} {reason}"
    if manifest.imbalance is not None:
        yield "imbalance", f"{manifest.imbalance:,} : 1 between the classes of D_l"
    if any(short_classes(manifest).values()):
        yield "below minimum", short_line(manifest)
    for line in loss_lines(manifest):
        yield "not shown", line
    yield "odd boxes", "; ".join(odd_boxes(manifest)) or "none"
    for root, offset in manifest.offsets.items():
        yield "offsets", f"{root}: {offset.images:,} is added to the ids of images, {offset.annotations:,} of boxes"
    yield from _origin(manifest)
    for view, groups in manifest.views.items():
        yield f"view {view}", ", ".join(f"{group} {len(names)}" for group, names in groups.items())
    for name, sha256 in manifest.files.items():
        yield name, f"sha256 {sha256}"
    yield "split", f"sha256 {manifest.split_sha256}"


def _origin(manifest: Manifest) -> Iterable[tuple[str, str]]:
    """Yield how the split came to be: drawn with which options, or imported, and from which files."""
    if manifest.imported:
        yield "imported", "others drew it and published it as annotation files"
        for role, file in manifest.imported_files.items():
            yield f"given {role}", f"{file.path}  sha256 {file.sha256}"
    elif not manifest.was_drawn:
        yield "given", f"labelled and unlabelled images as somebody had them; cissod-bench {manifest.tool_version}"
    else:
        keys = ("cover", "labelled_percent", "min_instances", "dm_minority", "unlabelled_percent")
        told = [f"{key} {value}" for key, value in manifest.held(*keys).items() if value is not None]
        yield "drawn with", f"{', '.join(told)}; cissod-bench {manifest.tool_version}"
    for role, file in manifest.inputs.items():
        yield f"input {role}", f"{file.path}  sha256 {file.sha256}"


def _bracketed(text: str) -> str:
    return f" ({text})" if text else ""


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _table(header: tuple[str, ...], text_columns: int = 1) -> Any:
    from rich.table import Table

    table = Table(*header)
    for column in table.columns[text_columns:]:
        column.justify = "right"
    return table


_CLASS_COLUMNS = {
    "images": "images in D_l",
    "boxes": "boxes",
    "dropped_boxes": "dropped",
    "ignored_boxes": "ignored",
    "unlabelled_images": "images in D_u",
    "unlabelled_boxes": "hidden boxes",
    "original_boxes": "in the data set",
}
_SELDOM = ("dropped_boxes", "ignored_boxes")  # columns that are left out where no class has any


def _print_classes(console: Console, manifest: Manifest) -> None:
    from cissod_bench.split_folders.listing import class_rows
    from cissod_bench.terminal import name_text

    rows = list(class_rows(manifest))
    keys = [key for key in _CLASS_COLUMNS if key not in _SELDOM or any(row[key] for row in rows)]
    table = _table(("class", "group", *(_CLASS_COLUMNS[key] for key in keys)), text_columns=2)
    for row in rows:
        table.add_row(name_text(row["class"]), name_text(row["group"]), *(_number(row[key]) for key in keys))
    console.print(table)


def print_difference(a: Path, b: Path, difference: SplitsDiffer) -> None:
    """Print what two splits differ in, A left and B right; only what differs."""
    from cissod_bench.terminal import Console, Text

    console = Console()
    if difference.equal:
        console.print(Text(f"Equal: {a} and {b}."), soft_wrap=True)
        return
    console.print(Text(f"A  {a}\nB  {b}"), soft_wrap=True)
    for title, pairs in (("differs", difference.facts), ("count", difference.counts)):
        if pairs:
            table = _table((title, "A", "B"))
            for key, (of_a, of_b) in pairs.items():
                table.add_row(Text(key), Text(_value(of_a)), Text(_value(of_b)))
            console.print(table)
    sets: tuple[tuple[str, Mapping[str, tuple[Any, Any]]], ...] = (("input", difference.inputs), ("", difference.files))
    for what, hashes in sets:
        for name, (of_a, of_b) in hashes.items():
            head = f"{what} {name}: sha256 ".lstrip()
            console.print(Text(f"{head}A {_value(of_a)}\n{' ' * len(head)}B {_value(of_b)}"), soft_wrap=True)
    for group, (only_a, only_b) in difference.groups.items():
        told = [f"{who} alone {_short(names)}" for who, names in (("A", only_a), ("B", only_b)) if names]
        console.print(Text(f"group {group}: {'; '.join(told)}"), soft_wrap=True)
    _print_ids(console, {"images": difference.images, "boxes": difference.boxes})


def _value(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else _short(value)


def _print_ids(console: Console, kinds: Mapping[str, Mapping[str, IdsDiffer]]) -> None:
    """Print how many ids differ in each data file, and below the table the first of them."""
    from cissod_bench.terminal import Text

    table = _table(("ids", "in both", "A alone", "B alone", "other record"))
    table.columns[0].no_wrap = True
    lines: list[str] = []
    for kind, files in kinds.items():
        for name, ids in files.items():
            table.add_row(f"{kind} of {name}", *map(_number, (ids.both, ids.only_a, ids.only_b, ids.changed)))
            first = (("A alone", ids.first_a), ("B alone", ids.first_b), ("other record", ids.first_changed))
            told = [f"{what} {', '.join(map(str, numbers))}" for what, numbers in first if numbers]
            lines.append(f"{kind} of {name}, the first: {'; '.join(told)}")
    if lines:
        console.print(table)
        console.print(Text("\n".join(lines)), soft_wrap=True)
