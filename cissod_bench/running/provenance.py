"""What a result was made with: package versions, device, cores, memory."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from cissod_bench import __version__, distributed
from cissod_bench.detector.cpu_operators import operators

PACKAGES = (
    "torch", "onedl-mmdetection", "onedl-mmcv", "onedl-mmengine", "numpy", "opencv-python", "hotcoco", "pycocotools",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return package -> installed version; packages that are missing are left out."""
    found = {"cissod-bench": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: torch.device) -> dict[str, Any]:
    """Return device, cores, memory in GiB, the number of processes, and whose RoIAlign and NMS compute.

    Args:
        device: of the training.

    Raises:
        UsageFault: the switch of those operators says what there is not.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    return {
        "device": name,
        "type": device.type,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory, 1),
        "world_size": distributed.world_size(),
        "system": platform.system(),
        "operators": operators(device),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
