"""What a published split says of itself: what it is, under which terms, and how it is cited: by its hash."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cissod_bench.errors import UsageFault
from cissod_bench.splitting.manifest import Manifest

HASHED = 12
"""Hexadecimal digits of the hash that stand in names."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What only the user knows of a publication; what is empty is not written.

    Attributes:
        license: name or address of the licence of the annotations.
        url: where the publication is found.
        creators: names of those who publish it.
        date: of the publication, "2026-11-29".
    """

    license: str = ""
    url: str = ""
    creators: tuple[str, ...] = ()
    date: str = ""

    def __post_init__(self) -> None:
        if self.date and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", self.date):
            raise UsageFault(f"--date is a day such as 2026-11-29. Got {self.date!r}.", remedy="write YYYY-MM-DD")

    @property
    def lacking(self) -> tuple[str, ...]:
        """Options that would say what a publication should say and this one does not."""
        given = {"license": self.license, "url": self.url, "creator": self.creators, "date": self.date}
        return tuple(f"--{name}" for name, value in given.items() if not value)


def split_name(manifest: Manifest) -> str:
    """Return a name that tells a split from every other one: task, seed and the beginning of its hash."""
    task = re.sub(r"[^A-Za-z0-9_-]+", "-", manifest.task)
    return f"{task}-seed{manifest.split_seed}-{manifest.split_sha256[:HASHED]}"


def description(manifest: Manifest) -> str:
    """Return what a split is, in a few sentences."""
    labelled, unlabelled = manifest.counts["labelled"], manifest.counts["unlabelled"]
    groups = ", ".join(f"{group} ({len(names)} classes)" for group, names in manifest.groups.items())
    origin = "imported" if manifest.imported else "drawn"
    hidden = f", in which {manifest.boxes.hidden:,} boxes are hidden" if manifest.hidden_known else ""
    return (
        f"{manifest.title}: a split for class-imbalanced semi-supervised object detection, {origin} with split seed "
        f"{manifest.split_seed} by cissod-bench. {labelled:,} labelled images with {manifest.boxes.labelled:,} boxes "
        f"and {unlabelled:,} unlabelled images{hidden}; {len(manifest.classes)} classes in the groups {groups}. "
        f"The sha256 of the split is {manifest.split_sha256}."
    )


def bibtex(manifest: Manifest, terms: Terms) -> str:
    """Return the entry to cite a split by; its hash is part of it."""
    fields = {
        "title": f"{{{manifest.title}: split {manifest.split_seed} for class-imbalanced semi-supervised detection}}",
        "author": f"{{{' and '.join(terms.creators)}}}" if terms.creators else "",
        "year": terms.date[:4] and f"{{{terms.date[:4]}}}",
        "howpublished": f"{{\\url{{{terms.url}}}}}" if terms.url else "",
        "note": f"{{sha256 {manifest.split_sha256}; made with cissod-bench {manifest.tool_version}}}",
    }
    written = ", ".join(f"{key} = {value}" for key, value in fields.items() if value)
    return f"@misc{{{split_name(manifest)}, {written}}}"


def check_new(out: Path) -> None:
    """Refuse to write over something that is there.

    Raises:
        UsageFault: ``out`` exists and is no empty folder.
    """
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise UsageFault(f"{out} is there already.", remedy="name a new folder with --out, or remove this one")
