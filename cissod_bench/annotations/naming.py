"""How an image record names its file."""

from __future__ import annotations

from typing import Literal, TypeAlias

Naming: TypeAlias = Literal["file_name", "coco_url", "objects365"]
"""How an image record names its file below its image folder: "file_name" as it stands; "coco_url" by the last two parts
of the URL, as LVIS does ("train2017/000000000009.jpg"); "objects365" by ``file_name`` without "images/v1/" or
"images/v2/", which are folders of the annotators and not of the release."""
