"""cissod-bench presets: scales and profiles, what one of them sets, and where it is not what its name says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from cissod_bench.cli.common import Output, global_options, pass_output
from cissod_bench.errors import unknown_name

REMEDY = "cissod-bench presets"
_HEADINGS = {"official": "Of the released code it leaves out", "paper": "The text leaves open, and it takes"}


@click.command("presets", short_help="List presets and profiles.")
@click.argument("name", required=False)
@global_options
@pass_output
def command(output: Output, name: str | None) -> None:
    """List presets (scale) and profiles (constants), or show NAME.

    For a preset: its settings beside the paper's, and differences from Soft Teacher's release that no setting changes.
    For a profile: whose constants it takes, what it does not reproduce, and what it chooses where the text is silent.
    """
    from cissod_bench.contract import fidelity, presets

    if name is None:
        rows = [_row(n, t, "preset", fidelity.NOT_SOFT_TEACHERS) for n, t in presets.PRESET_TITLES.items()]
        rows += [_row(n, t, "profile", fidelity.points_of(n)) for n, t in presets.PROFILES.items()]
        output.result(rows)
        if not output.json:
            _list(rows)
    elif name in presets.PROFILES:
        row = _row(name, presets.PROFILES[name], "profile", fidelity.points_of(name))
        output.result(row)
        if not output.json:
            click.echo(f"Profile {name}: {row['title']}")
            _tell(_HEADINGS.get(name, ""), row["differs"])
    elif name not in presets.PRESETS:
        raise unknown_name("preset or profile", name, [*presets.PRESETS, *presets.PROFILES], remedy=REMEDY)
    else:
        used = asdict(presets.preset(name, task_iterations=180_000))
        output.result(used)
        if not output.json:
            _settings(name, used, asdict(presets.preset("full", task_iterations=180_000)))
            _tell("Not as in Soft Teacher's release, whatever is set", dict(fidelity.NOT_SOFT_TEACHERS))


def _row(name: str, title: str, source: str, differs: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, "title": title, "source": source, "differs": dict(differs)}


def _list(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from cissod_bench.terminal import Console

    table = Table("kind", "name", "what it fixes", "not as its source")
    for row in rows:
        differs = row["differs"]
        table.add_row(row["source"], row["name"], row["title"], f"{len(differs)} points" if differs else "")
    Console().print(table)
    click.echo("cissod-bench presets NAME shows the settings and those points.")


def _settings(name: str, used: dict[str, Any], paper: dict[str, Any]) -> None:
    from rich.table import Table

    from cissod_bench.contract.settings import SETTINGS
    from cissod_bench.declared import sentence
    from cissod_bench.terminal import Console, Text

    title = f"Settings of preset {name} (change one with --set key=value)"
    table = Table("setting", name, "full", "what it sets; what it may be", title=title)
    for key, value in used.items():
        full = "" if value == paper[key] else str(paper[key])
        table.add_row(key, Text(str(value)), Text(full), Text(sentence(SETTINGS[key])))
    Console().print(table)


def _tell(title: str, points: Mapping[str, str]) -> None:
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    if not points:
        return
    table = Table(show_header=False, box=None)
    for point, words in points.items():
        table.add_row(Text(point, style="dim"), Text(words))
    click.echo(f"{title}:")
    Console().print(table)
