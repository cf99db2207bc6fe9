"""The card of a split on Hugging Face's hub: which folders are which part, what a record holds, how it is cited."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from cissod_bench.split_folders.publishing import Terms, bibtex, description, split_name
from cissod_bench.splitting.manifest import Manifest


def card(manifest: Manifest, terms: Terms, parts: Sequence[str]) -> str:
    """Return the card as Markdown with a head of YAML.

    Args:
        manifest: of the split.
        terms: what only the user knows.
        parts: those of "labelled", "validation" and "unlabelled" that are there.
    """
    return "\n".join(["---", *_head(manifest, terms, parts), "---", "", *_body(manifest, terms, parts), ""])


def _head(manifest: Manifest, terms: Terms, parts: Sequence[str]) -> Iterator[str]:
    """Yield the YAML; texts are written as JSON, which is YAML, too."""
    yield f"pretty_name: {json.dumps(f'{manifest.title}, split {manifest.split_seed}', ensure_ascii=False)}"
    yield "task_categories:"
    yield "- object-detection"
    if terms.license:
        yield f"license: {json.dumps(terms.license, ensure_ascii=False)}"
    shown = [(part, name) for part, name in (("labelled", "train"), ("validation", "validation")) if part in parts]
    yield "configs:"
    yield from _config("labelled", shown, default=True)
    yield from _config("unlabelled", [("unlabelled", "train")])


def _config(name: str, shown: Sequence[tuple[str, str]], *, default: bool = False) -> Iterator[str]:
    yield f"- config_name: {name}"
    if default:
        yield "  default: true"
    yield "  data_files:"
    for folder, split in shown:
        yield f"  - split: {split}"
        yield f'    path: "{folder}/**"'


def _body(manifest: Manifest, terms: Terms, parts: Sequence[str]) -> Iterator[str]:
    yield f"# {manifest.title}, split {manifest.split_seed}"
    yield ""
    yield description(manifest)
    yield ""
    yield "```python"
    yield "from datasets import load_dataset"
    yield ""
    yield 'labelled = load_dataset("FOLDER", "labelled", split="train")  # D_l'
    if "validation" in parts:
        yield 'scored = load_dataset("FOLDER", "labelled", split="validation")'
    yield 'unlabelled = load_dataset("FOLDER", "unlabelled", split="train")  # D_u, without a box'
    yield "```"
    yield ""
    yield "`objects` holds a list for each column: `bbox` is x, y, width and height in pixels, `category` the name of"
    yield "the class, and an object that is `ignored` is to be neither found nor missed."
    yield ""
    yield "The split's own files lie in `split`. `cissod-bench splits verify split` compares them with their hashes."
    yield ""
    yield "| group | classes |"
    yield "|---|---|"
    for group, names in manifest.groups.items():
        yield f"| {group} | {', '.join(names)} |"
    yield ""
    yield f"Cite it as `{split_name(manifest)}`:"
    yield ""
    yield "```bibtex"
    yield bibtex(manifest, terms)
    yield "```"
