"""Set-up takes the torch that fits the machine: real pip and uv, false indexes on 127.0.0.1 with tiny wheels."""

from __future__ import annotations

import os
import shutil
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pip
import pytest
from package_index import CUDA, Index, closed_address, serve, tiny_wheel
from setup_packages import Installer, translated
from setup_torch import NoTorch, TorchSetup

UV = Path(sys.executable).parent / "uv"
needs_uv = pytest.mark.skipif(not UV.is_file(), reason="this environment has no uv")
WITH_CUDA = tiny_wheel("torch", "2.13.0", CUDA)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """PyTorch's index with two builds, and a plain one whose only torch brings CUDA."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate")
    builds = {backend: dict([tiny_wheel("torch", f"2.13.0+{backend}", *more)]) for backend, more in BUILDS.items()}
    pages = {f"whl/{backend}": wheels for backend, wheels in builds.items()}
    pages |= {"simple": dict([WITH_CUDA, tiny_wheel(CUDA, "13.0")])}
    folder = tmp_path_factory.mktemp("index")
    index = Index(folder, pages)
    server = serve(index)
    yield index
    server.shutdown()


BUILDS = {"cpu": (), "cu126": (CUDA,), "cu130": (CUDA,)}


@dataclass
class Machine:
    """An empty environment, the set-up for it and what it said."""

    folder: Path
    setup: TorchSetup
    said: list[str]

    def versions(self) -> dict[str, str]:
        found = (self.folder / "venv").glob("lib/python*/site-packages/*.dist-info")
        return dict(path.name.removesuffix(".dist-info").split("-") for path in found)


@pytest.fixture
def machine(index: Index, tmp_path: Path) -> Machine:
    """A machine without a card whose pip knows the plain index, and whose uv reaches PyTorch's."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (tmp_path / "pins.txt").write_text("torch==2.13.0\n", encoding="utf-8")
    python = str(tmp_path / "venv" / "bin" / "python")
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "pip").symlink_to(Path(pip.__file__).parent)  # as if installed, in no time
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    environment = {
        **ours,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{index.address}/simple",
        "UV": str(UV),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_HTTP_RETRIES": "0",
        "UV_NO_CONFIG": "1",
        "NO_PROXY": "127.0.0.1",
        "HTTPS_PROXY": index.address,
        "SSL_CERT_FILE": str(index.folder / "authority.pem"),
    }
    installer = Installer(python, tmp_path / "log", environment)
    said: list[str] = []
    index.asked.clear()
    return Machine(tmp_path, TorchSetup(installer, tmp_path / "pins.txt", "torch", gpu=False, say=said.append), said)


def changed(machine: Machine, **variables: str) -> TorchSetup:
    """The same set-up under other environment variables."""
    installer = machine.setup.installer
    return replace(machine.setup, installer=replace(installer, environment={**installer.environment, **variables}))


@needs_uv
def test_without_a_card_uv_brings_the_cpu_build_where_pip_would_bring_cuda(machine: Machine, index: Index) -> None:
    machine.setup.install()
    assert machine.versions() == {"torch": "2.13.0+cpu"}
    assert "   pip would bring 1 packages of CUDA" in machine.said
    assert any(path.endswith("/whl/cpu/torch/") for path in index.asked)


@needs_uv
def test_with_a_card_uv_brings_the_newest_build_that_its_driver_runs(machine: Machine, index: Index) -> None:
    setup = changed(machine, UV_CUDA_DRIVER_VERSION="560.35")  # runs CUDA 12.6 and nothing newer
    replace(setup, gpu=True).install()
    assert machine.versions()["torch"] == "2.13.0+cu126"
    assert not any(path.endswith("/whl/cu130/torch/") for path in index.asked)


@needs_uv
def test_with_a_card_and_no_way_to_pytorchs_index_pip_s_torch_is_taken(machine: Machine) -> None:
    setup = changed(machine, HTTPS_PROXY=closed_address(), UV_CUDA_DRIVER_VERSION="580.82")
    replace(setup, gpu=True).install()
    assert machine.versions() == {"torch": "2.13.0", CUDA.replace("-", "_"): "13.0"}


@pytest.mark.parametrize("reason", ["no uv", "no way"])
def test_where_uv_cannot_help_nothing_is_installed_and_the_ways_out_are_told(reason: str, machine: Machine) -> None:
    if reason == "no way" and not UV.is_file():
        pytest.skip("this environment has no uv")
    setup = changed(machine, **({"UV": "no"} if reason == "no uv" else {"HTTPS_PROXY": closed_address()}))
    with pytest.raises(NoTorch, match=rf"shows no NVIDIA GPU.*CUDA packages with torch \({CUDA}\)") as told:
        setup.install()
    assert machine.versions() == {}
    assert any("TORCH=" in way for way in told.value.ways_out)


def test_a_torch_of_pip_s_settings_that_brings_no_cuda_is_taken_by_pip_too(machine: Machine, index: Index) -> None:
    wheels = machine.folder / "wheels"
    wheels.mkdir()
    name, content = tiny_wheel("torch", "2.13.0+cpu")
    (wheels / name).write_bytes(content)
    changed(machine, UV="no", PIP_FIND_LINKS=str(wheels)).install()
    assert machine.versions() == {"torch": "2.13.0+cpu"}
    assert machine.said[-1] == "== torch==2.13.0+cpu"
    assert not any("/whl/" in path for path in index.asked)


@needs_uv
def test_cuda_packages_are_taken_where_they_are_wanted(machine: Machine, index: Index) -> None:
    replace(machine.setup, cuda_wanted=True).install()
    assert machine.versions()["torch"] == "2.13.0"
    assert not any("/whl/" in path for path in index.asked)


def test_pip_s_settings_are_handed_to_uv_and_the_environment_counts_before_files() -> None:
    listing = "\n".join(
        [
            ":env:.find-links='/my wheels'",
            "global.extra-index-url='https://a.example/simple\\nhttps://b.example/simple'",
            "global.find-links='/old'",
            "global.timeout='60'",
            "freeze.timeout='10'",
            ":env:.disable-pip-version-check='1'",
        ]
    )
    told = translated(listing)
    assert told == {
        "UV_FIND_LINKS": "/my,wheels",
        "UV_INDEX": "https://a.example/simple https://b.example/simple",
        "UV_HTTP_TIMEOUT": "60",
    }


def test_with_a_setting_that_uv_has_no_word_for_pip_installs() -> None:
    assert translated("global.require-hashes='1'\n") is None
    assert translated("") == {}


def test_uv_is_not_asked_where_the_environment_borrows_packages(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "pyvenv.cfg").write_text("include-system-site-packages = true\n", encoding="utf-8")
    (tmp_path / "bin" / "python").symlink_to(shutil.which("true") or "/bin/true")
    installer = Installer(str(tmp_path / "bin" / "python"), tmp_path / "log", {})
    assert installer.uv_settings() is None
