"""``cissod-bench splits export``: a split for others to use, and to cite by its hash."""

from __future__ import annotations

from pathlib import Path

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option


@click.command("export", short_help="Write a split for publication: Croissant, or for Hugging Face.")
@click.argument("place", metavar="TASK|FOLDER")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["croissant", "huggingface"]),
    required=True,
    help="croissant: the split's files and croissant.json. huggingface: folders with the images, for `datasets`.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make; it must be new.")
@click.option("--split-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which split of TASK.")
@click.option("--license", default="", metavar="TEXT", help="Licence of the annotations: its name or address.")
@click.option("--url", default="", metavar="URL", help="Where the publication is found.")
@click.option("--creator", "creators", multiple=True, metavar="NAME", help="Who publishes it; repeatable.")
@click.option("--date", default="", metavar="YYYY-MM-DD", help="Day of the publication.")
@data_root_option
@work_dir_option
@global_options
@pass_output
def export_command(
    output: Output,
    *,
    place: str,
    kind: str,
    out: Path,
    split_seed: int,
    license: str,
    url: str,
    creators: tuple[str, ...],
    date: str,
    data_root: Path,
    work_dir: Path,
) -> None:
    """Write a split for publication, described such that programs read it, with its hash to cite it by.

    Its files are compared with their hashes before. What a publication should say and the options do not is told.
    """
    from cissod_bench.cli.file_progress import shown_progress
    from cissod_bench.split_folders.croissant import write_croissant
    from cissod_bench.split_folders.hub_folder import write_hub_folder
    from cissod_bench.split_folders.listing import find_split, scored_file
    from cissod_bench.split_folders.publishing import Terms, bibtex
    from cissod_bench.splitting.manifest import read_manifest

    terms = Terms(license=license, url=url, creators=creators, date=date)
    folder = find_split(place, split_seed, work_dir)
    if kind == "croissant":
        written = write_croissant(folder, out, terms)
    else:
        root, val = scored_file(folder, data_root, work_dir)
        if val is None:
            output.warn("The validation file is not at hand: the scored images are left out. Name its --data-root.")
        with shown_progress(output) as progress:
            written = write_hub_folder(folder, out, terms, root=root, val=val, within=data_root, progress=progress)
    if terms.lacking:
        output.warn(f"A publication should say more: {', '.join(terms.lacking)}.")
    manifest = read_manifest(folder)
    cite = bibtex(manifest, terms)
    output.tell(f"Written: {', '.join(map(str, written))}\nCite it as:\n{cite}")
    output.result(
        {"dir": str(out), "files": list(map(str, written)), "split_sha256": manifest.split_sha256, "cite": cite}
    )
