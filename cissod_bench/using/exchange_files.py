"""A detector as a TorchScript, an ONNX or a safetensors file, with what its user has to know beside it."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cissod_bench.contract.settings import Settings
from cissod_bench.contract.stock import Stock
from cissod_bench.errors import EnvironmentFault
from cissod_bench.files.whole_files import make_folder, write_bytes, write_json
from cissod_bench.using.agreement import Found, columns_of
from cissod_bench.using.plain import PlainDetector

SCRIPT, ONNX, TENSORS, FACTS = "detector.pt", "detector.onnx", "detector.safetensors", "detector.json"
OPSET = 17
Pixels = Any
"""An image as it goes in: blue, green, red, resized, uint8, shape (H, W, 3)."""
_jit: Any = torch.jit  # without types
_OUTPUTS = ("boxes", "labels", "scores")


def needed(package: str) -> Any:
    """Return a package of the extra ``export``.

    Raises:
        EnvironmentFault: it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise EnvironmentFault(
            f"This format needs the package {package}, which cannot be imported ({error}).",
            remedy="pip install 'cissod-bench[export]'",
        ) from error


def facts_of(settings: Settings, classes: Sequence[str], title: str) -> dict[str, Any]:
    """Return what ``detector.json`` says: how an image goes in, and what comes out.

    Args:
        settings: of the run.
        classes: names in channel order.
        title: of the run.
    """
    return {
        "title": title,
        "classes": list(classes),
        "input": {
            "name": "image",
            "shape": [1, 3, "height", "width"],
            "type": "float32",
            "channels": "blue, green, red in [0, 255]; the detector normalises and pads by itself",
            "resize": {"short_side": settings.test_short_side, "long_side": settings.long_side, "keep_ratio": True},
        },
        "outputs": {
            "boxes": "x1, y1, x2, y2 in pixels of the resized image, (M, 4); divide by its scale",
            "labels": "places in classes, (M,)",
            "scores": "in (0, 1], best first, (M,)",
        },
    }


def write_script(folder: Path, detector: Stock, example: Pixels) -> list[Path]:
    """Write a detector as a TorchScript file and return its path.

    Args:
        folder: where to.
        detector: what is exported.
        example: an image that the detector is followed on; others may have any size.
    """
    stream = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.jit will go, and what follows the example: tests look at both
        traced = _jit.trace(PlainDetector(detector), as_input(example), check_trace=False)
        _jit.save(traced, stream)
    write_bytes(make_folder(folder) / SCRIPT, stream.getvalue())
    return [folder / SCRIPT]


def write_onnx(folder: Path, detector: Stock, example: Pixels) -> list[Path]:
    """Write a detector as an ONNX file and return its path.

    Args:
        folder: where to.
        detector: what is exported.
        example: as for `write_script`.

    Raises:
        EnvironmentFault: the package onnx is not installed.
    """
    needed("onnx")
    stream = io.BytesIO()
    free = {"image": {2: "height", 3: "width"}, **{name: {0: "detections"} for name in _OUTPUTS}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            PlainDetector(detector, onnx=True),
            (as_input(example),),
            stream,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(_OUTPUTS),
            dynamic_axes=free,
        )
    write_bytes(make_folder(folder) / ONNX, stream.getvalue())
    return [folder / ONNX]


def write_tensors(folder: Path, detector: Stock, facts: dict[str, Any]) -> list[Path]:
    """Write a detector's weights as a safetensors file, its settings and classes in the header, and return its path.

    Args:
        folder: where to.
        detector: what is exported.
        facts: as `facts_of` returns them.

    Raises:
        EnvironmentFault: the package safetensors is not installed.
    """
    save = needed("safetensors.torch").save
    header = {"format": "pt", "mmdet": json.dumps(detector.config), "facts": json.dumps(facts)}
    write_bytes(make_folder(folder) / TENSORS, save(detector.state, metadata=header))
    return [folder / TENSORS]


def write_facts(folder: Path, facts: dict[str, Any]) -> Path:
    """Write ``detector.json`` and return its path."""
    write_json(make_folder(folder) / FACTS, facts)
    return folder / FACTS


def as_input(image: Pixels) -> torch.Tensor:
    """Return an image as the exported detector takes it, float32, shape (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None]).float()


def script_program(path: Path) -> Callable[[Pixels], Found]:
    """Return what a TorchScript file finds in an image, in the image's own pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = _jit.load(path, map_location="cpu")

    def run(image: Pixels) -> Found:
        with torch.no_grad():
            return columns_of(*(value.numpy() for value in loaded(as_input(image))))

    return run


def onnx_program(path: Path) -> Callable[[Pixels], Found]:
    """Return what an ONNX file finds in an image by onnxruntime, in the image's own pixels.

    Raises:
        EnvironmentFault: onnxruntime is not installed.
    """
    session = needed("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: columns_of(*session.run(list(_OUTPUTS), {"image": as_input(image).numpy()}))
