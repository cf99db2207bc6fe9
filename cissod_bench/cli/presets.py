"""cissod-bench presets: scales and profiles, and the settings of one."""

from __future__ import annotations

from dataclasses import asdict

import click

from cissod_bench.cli.common import Output, global_options, pass_output


@click.command("presets", short_help="List presets and profiles.")
@click.argument("name", required=False)
@global_options
@pass_output
def command(output: Output, name: str | None) -> None:
    """List presets (scale) and profiles (constants), or the settings of preset NAME beside the paper's."""
    from rich.table import Table

    from cissod_bench.terminal import Console
    from cissod_bench.training import settings

    if name is None:
        rows = [{"name": n, "title": t, "source": "preset"} for n, t in settings.PRESET_TITLES.items()]
        rows += [{"name": n, "title": t, "source": "profile"} for n, t in settings.PROFILES.items()]
        table = Table("kind", "name", "what it fixes")
        for row in rows:
            table.add_row(row["source"], row["name"], row["title"])
        output.result(rows)
    else:
        used = asdict(settings.preset(name, task_iterations=180_000))
        paper = asdict(settings.preset("full", task_iterations=180_000))
        table = Table("setting", name, "full", title=f"Settings of preset {name} (change one with --set key=value)")
        for key, value in used.items():
            table.add_row(key, str(value), "" if value == paper[key] else str(paper[key]))
        output.result(used)
    if not output.json:
        Console().print(table)
