"""``cissod-bench data convert``: labels of YOLO and PASCAL VOC as COCO files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cissod_bench.cli.common import Output, global_options, pass_output
from cissod_bench.errors import UsageFault

if TYPE_CHECKING:
    from cissod_bench.annotations.conversion import Converted


@click.command("convert", short_help="Write labels of YOLO or PASCAL VOC as COCO files.")
@click.argument("sources", metavar="[NAME=]SOURCE...", nargs=-1, required=True)
@click.option(
    "--images",
    "folders",
    multiple=True,
    metavar="[NAME=]FOLDER",
    help="Where the images lie, of all parts or of one; repeatable.  [default: as the source says]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the COCO files, NAME.json for each part."
)
@global_options
@pass_output
def convert_command(output: Output, *, sources: tuple[str, ...], folders: tuple[str, ...], out: Path) -> None:
    """Write labels as COCO files, one for each part, with the same classes in all of them.

    A SOURCE is YOLO's data.yaml (all of its parts, or the one that NAME says), a folder of PASCAL VOC's XML files, or a
    COCO file. Classes are joined by name; it is told which part lacks which class. Outlines become the boxes around
    them, difficult objects of PASCAL VOC ignore regions. Images stay where they are.
    """
    from cissod_bench.annotations.conversion import convert, named_sources
    from cissod_bench.cli.file_progress import shown_progress

    named = named_sources(sources)
    images = _folders(folders, list(named))
    with shown_progress(output) as progress:
        made = convert(named, images, out, progress=progress)
    for warning in made.report.warnings:
        output.warn(warning)
    output.result(_facts(made))
    if not output.json:
        _print(output, made)


def _folders(given: tuple[str, ...], parts: list[str]) -> dict[str, Path]:
    """Return part -> folder of images."""
    folders: dict[str, Path] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        if equals and name not in parts:
            raise UsageFault(
                f"--images {text}: there is no part {name!r}; there is {', '.join(parts)}.",
                remedy=f"write --images {parts[0]}=FOLDER, or --images FOLDER for all parts",
            )
        folders |= {name: Path(rest)} if equals else {part: Path(text) for part in parts if part not in folders}
    return folders


def _facts(made: Converted) -> dict[str, Any]:
    return {
        "parts": {
            part: {
                "file": str(made.files[part]),
                "images": str(labelled.images),
                "format": labelled.format,
                "counts": dict(labelled.counts),
            }
            for part, labelled in made.parts.items()
        },
        "classes": dict(made.report.numbers),
        "objects": {part: dict(held) for part, held in made.report.objects.items()},
        "missing": {part: list(names) for part, names in made.report.missing.items()},
    }


def _print(output: Output, made: Converted) -> None:
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    table = Table("class", box=None, pad_edge=False)
    for part in made.parts:
        table.add_column(part, justify="right")
    for name in made.report.numbers:
        held = [made.report.objects[part].get(name) for part in made.parts]
        table.add_row(Text(name), *("not named" if count is None else f"{count:,}" for count in held))
    Console().print(table)
    for part, labelled in made.parts.items():
        content = labelled.content
        output.tell(
            f"{made.files[part]}: {len(content['images']):,} images below {labelled.images}, "
            f"{len(content['annotations']):,} boxes{''.join(f'; {note}' for note in labelled.notes)}"
        )
