"""An mmdet config, its checkpoint and plugins: what ``mmdet.apis.init_detector`` takes, on its own."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from pprint import pformat
from typing import Any

import torch

from cissod_bench.contract.settings import Settings
from cissod_bench.contract.stock import Stock
from cissod_bench.files.orientation import Reading
from cissod_bench.files.whole_files import make_folder, write_bytes

CONFIG, CHECKPOINT = "detector.py", "detector.pth"
_PLUGINS = "cissod_bench.using.plugins"
_HEAD = '''"""{title}, exported by cissod-bench {version}.

    from mmdet.apis import inference_detector, init_detector

    detector = init_detector("{config}", "{checkpoint}", device="cpu")
    found = inference_detector(detector, "photo.jpg").pred_instances  # bboxes (xyxy), labels, scores
"""

'''
_PLUGGED = """import sys

sys.path.insert(0, r"{{{{ fileDirname }}}}")  # mmengine puts this file's folder here; the plugins lie in it
custom_imports = {{"imports": {plugins!r}, "allow_failed_imports": False}}
"""


def config_text(detector: Stock, settings: Settings, classes: Sequence[str], reading: Reading, title: str) -> str:
    """Return the text of an mmdet config file.

    Args:
        detector: what mmdet builds.
        settings: of the run.
        classes: names in channel order.
        reading: how images are turned.
        title: of the run, for the reader.
    """
    from cissod_bench import __version__

    head = _HEAD.format(title=title, version=__version__, config=CONFIG, checkpoint=CHECKPOINT)
    head += _PLUGGED.format(plugins=detector.plugins) if detector.plugins else ""
    pipeline = [
        {"type": "LoadImageFromFile", "color_type": "color" if reading.apply else "color_ignore_orientation"},
        {"type": "Resize", "scale": (settings.long_side, settings.test_short_side), "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
    ]
    values = {
        "default_scope": "mmdet",
        "classes": tuple(classes),
        "model": detector.config,
        "test_pipeline": pipeline,
        "test_dataloader": {
            "batch_size": 1,
            "num_workers": 0,
            "dataset": {"type": "CocoDataset", "metainfo": {"classes": tuple(classes)}, "pipeline": pipeline},
        },
    }
    return (
        head
        + "\n".join(f"{name} = {pformat(value, width=110, sort_dicts=False)}" for name, value in values.items())
        + "\n"
    )


def write_mmdet(
    folder: Path, detector: Stock, settings: Settings, classes: Sequence[str], reading: Reading, title: str
) -> list[Path]:
    """Write config, checkpoint and plugins into a folder, and return their paths.

    Args:
        folder: where to.
        detector: what mmdet builds.
        settings: of the run.
        classes: names in channel order.
        reading: how images are turned.
        title: of the run, for the reader.

    Raises:
        EnvironmentFault: the place cannot be written.
    """
    make_folder(folder)
    paths = [folder / CONFIG, folder / CHECKPOINT, *(folder / f"{name}.py" for name in detector.plugins)]
    write_bytes(paths[0], config_text(detector, settings, classes, reading, title).encode("utf-8"))
    write_bytes(
        paths[1], _packed({"state_dict": detector.state, "meta": {"dataset_meta": {"classes": tuple(classes)}}})
    )
    for path in paths[2:]:
        write_bytes(path, files(_PLUGINS).joinpath(path.name).read_bytes())
    return paths


def _packed(content: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()
