"""An environment with the wheel and the core's packages alone, and what somebody without torch does in it.

The environment is a real one, whose packages are links to those that the tests run with: what the wheel requires, and
what that requires. Nothing is fetched, and what is not required is not there.
"""

from __future__ import annotations

import json
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from shapes import copy_shapes
from tiny_files import TINY_TASK

NOT_EVERYWHERE = """
import os, shutil, signal, sys

# What Windows or macOS lacks of Python is taken away before anything of ours is imported.
for module, names in (
    (os, "fork forkpty register_at_fork sched_getaffinity sysconf killpg setsid getuid geteuid chown getpgid"),
    (signal, "SIGHUP SIGPIPE SIGKILL SIGUSR1 SIGUSR2 SIGCHLD SIGALRM setitimer pthread_sigmask"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "resource", "grp", "termios"):
    sys.modules[name] = None
opened = os.open

def no_folders(path, *more, **words):
    if not isinstance(path, int) and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return opened(path, *more, **words)

os.open, shutil._use_fd_functions = no_folders, False
"""
CHAIN = (
    NOT_EVERYWHERE
    + """
import json, time
from cissod_bench import cli

codes = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["cissod-bench", *words]
    try:
        cli.entry()
    except SystemExit as ended:
        codes.append([words[0], ended.code or 0])
heavy = sorted({"torch", "mmcv", "mmengine", "mmdet"} & sys.modules.keys())
print(json.dumps([codes, heavy, time.process_time()]), file=open("told.json", "w"))
"""
)
"""Runs commands in one process, and leaves behind their exit codes, what heavy was imported and the seconds it took."""


def _names(of: Distribution) -> list[str]:
    """Return what a distribution requires here without extras."""
    requirements = pytest.importorskip("packaging.requirements")
    stated = map(requirements.Requirement, of.requires or [])
    return [one.name for one in stated if one.marker is None or one.marker.evaluate({"extra": ""})]


def required(wheel: Distribution) -> dict[str, Distribution]:
    """Return what a wheel needs here without extras, and what that needs, by name."""
    needed: dict[str, Distribution] = {}
    waiting = _names(wheel)
    while waiting:
        project = waiting.pop().lower().replace("_", "-")
        if project in needed:
            continue
        try:
            needed[project] = distribution(project)
        except PackageNotFoundError:
            pytest.skip(f"{project}, which the core requires, is not installed here: make setup")
        waiting += _names(needed[project])
    return needed


def core_alone(folder: Path, installed: Path) -> Path:
    """Make an environment of the wheel, which is installed in a folder, and of what it requires; return its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    tops = {entry.name: entry for entry in installed.iterdir() if entry.name != "bin"}
    (wheel,) = (Distribution.at(path) for path in installed.glob("cissod_bench-*.dist-info"))
    for there in required(wheel).values():
        tops |= {file.parts[0]: Path(str(there.locate_file(file.parts[0]))) for file in there.files or []}
    for top, source in tops.items():
        if top not in ("..", "__pycache__"):
            (packages / top).symlink_to(source)
    return folder / "bin" / "python"


def somebodys_data(folder: Path) -> Path:
    """Draw a data set with its task file into ``data``, and predictions of somebody's detector into ``found.json``."""
    root = folder / "data"
    weights = {"circle": 2.0, "square": 1.5, "heart": 1.0, "arrow": 0.8}
    copy_shapes(root / "tiny", {"train": 40, "val": 10}, weights, seed=7)
    (root / "tiny.toml").write_text(TINY_TASK, encoding="utf-8")
    truth = json.loads((root / "tiny/annotations/val.json").read_text(encoding="utf-8"))
    random = np.random.default_rng(0)
    keys = ("image_id", "category_id", "bbox")
    found = [{key: box[key] for key in keys} | {"score": random.uniform()} for box in truth["annotations"][::2]]
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    return root
