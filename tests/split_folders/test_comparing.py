"""Two splits compared: what the rules of odd boxes would hide is compared, too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from split_folders import content, folder
from wrong_splits import rewrite

from cissod_bench.split_folders.compare import compare
from cissod_bench.splitting.data_files import LABELLED

Call = Callable[..., Any]


@pytest.mark.parametrize("beyond", ["right", "below"])
def test_boxes_of_images_with_doubtful_sizes_are_compared(split: Call, tmp_path: Path, beyond: str) -> None:
    """Such a box may lie outside its image as the size stands, and within it if width and height are exchanged."""
    split()
    image = next(
        image
        for image in content(folder(tmp_path) / LABELLED)["images"]
        if (image["width"] < image["height"] if beyond == "right" else image["height"] < image["width"])
    )
    other = tmp_path / "other"
    shutil.copytree(folder(tmp_path), other)
    for place, side in ((folder(tmp_path), 5.0), (other, 6.0)):

        def change(files: dict[str, Any], manifest: dict[str, Any], side: float = side) -> None:
            box = next(box for box in files[LABELLED]["annotations"] if box["image_id"] == image["id"])
            corner = [image["width"] + 1, 2] if beyond == "right" else [2, image["height"] + 1]
            box["bbox"] = [*corner, side, side]
            manifest["doubtful_sizes"] = [image["file_name"]]

        rewrite(place, change)
    boxes = compare(folder(tmp_path), other).boxes[LABELLED]
    assert (boxes.changed, boxes.only_a, boxes.only_b) == (1, 0, 0)
