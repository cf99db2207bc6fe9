"""What the documentation site takes from outside docs/: README, CONTRIBUTING and CHANGELOG, with their links turned.

mkdocs calls these functions (``hooks`` in mkdocs.yml). The three files stay where people look for them, at the root.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "start.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""File at the root -> its page of the site."""


def turned(text: str) -> str:
    """Return Markdown in which links to the files at the root, and from there to docs/, are links between pages."""
    for file, page in PAGES.items():
        link = rf"\]\((?P<up>(?:\.\./)*?)(?:\.\./)?{re.escape(file)}(?P<end>[#)])"
        text = re.sub(link, rf"](\g<up>{page}\g<end>", text)
    return re.sub(r"\]\(docs/", "](", text)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie at the root."""
    for file, page in PAGES.items():
        text = turned((ROOT / file).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn the links of a page in docs/ to the files at the root."""
    return turned(markdown)
