"""Files of weights: fetched once, read without running what they hold, and with a way out where they are missing."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from weights import caffe, fault_of, saved, with_file

from cissod_bench.backbones.pretrained import backbone_of, read_weights
from cissod_bench.backbones.weight_files import cache_folder, origin_of
from cissod_bench.contract.frozen_layers import FROM_SCRATCH
from cissod_bench.contract.settings import FULL
from cissod_bench.errors import EnvironmentFault


@pytest.mark.slow
@pytest.mark.parametrize("held", [Namespace(lr=1.0), Path("x"), Fraction(1, 2)], ids=["options", "path", "class"])
def test_a_file_that_could_run_code_is_refused_and_the_command_that_strips_it_works(tmp_path: Path, held: Any) -> None:
    path = saved(tmp_path, {"model": caffe(), "args": held})
    fault = fault_of(with_file(path))
    assert "could run code" in fault.message
    command = str(fault.remedy).split("if you trust the file, keep its weights alone: ")[1].split(", then")[0]
    environment = {"PATH": str(Path(sys.executable).parent)}
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    backbone = backbone_of(with_file(tmp_path / "weights.pth"))
    assert backbone is not None
    assert backbone.kind == "caffe"


@pytest.mark.parametrize("length", [0, 10, 1000, -1000])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_refused(tmp_path: Path, length: int, zipped: bool) -> None:
    path = tmp_path / "backbone.pth"
    torch.save(caffe(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:length])
    assert str(path) in fault_of(with_file(path)).message


@pytest.mark.parametrize("content", [b"<html>404</html>", b"", b"\x00" * 100, b'{"a": 1}'])
def test_a_file_that_is_no_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "backbone.pth"
    path.write_bytes(content)
    assert str(path) in fault_of(with_file(path)).message


def test_an_old_torch_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    torch.save(caffe(), path, _use_new_zipfile_serialization=False)
    assert backbone_of(with_file(path)) is not None


UNREACHABLE = (
    "/nowhere/r50.pth", "http://127.0.0.1:9/r50.pth", "open-mmlab://no-such-model", "torchvision://resnet5000",
    "s3://bucket/r50.pth", ".", "resnet50",
)  # fmt: skip


@pytest.mark.parametrize("named", UNREACHABLE)
def test_a_file_that_cannot_be_had_is_named_with_ways_out_that_freeze_nothing_random(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="cannot be read or fetched") as fault:
        read_weights(named)
    assert repr(named) in fault.value.message
    remedy = str(fault.value.remedy)
    assert "--set pretrained=FILE" in remedy
    assert remedy.endswith(FROM_SCRATCH)
    if named.startswith("http"):
        assert f"fetch {named} elsewhere and copy it to {tmp_path / 'hub/checkpoints/r50.pth'}" in remedy


def test_a_file_copied_to_the_place_that_the_fault_names_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    named = "http://127.0.0.1:9/r50.pth"
    with pytest.raises(EnvironmentFault) as fault:
        read_weights(named)
    place = Path(str(fault.value.remedy).split("copy it to ")[1].split(", or")[0])
    place.parent.mkdir(parents=True, exist_ok=True)
    saved(place.parent, caffe(), place.name)
    assert backbone_of(with_file(named)) is not None


def test_a_file_is_fetched_once_and_only_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    content = saved(tmp_path, caffe()).read_bytes()
    asked = []

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path != "/none.pth" else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: 1000 if self.path == "/cut.pth" else None])

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with HTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{site.server_port}"
        for _ in range(2):
            assert read_weights(f"{root}/r18.pth").depth == 18
        assert asked == ["/r18.pth"]
        for cut in ("cut", "none"):
            with pytest.raises(EnvironmentFault, match="cannot be read or fetched"):
                read_weights(f"{root}/{cut}.pth")
        site.shutdown()
    assert [path.name for path in cache_folder().glob("[!.]*")] == ["r18.pth"]


def test_the_papers_backbone_has_an_address_and_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    origin = origin_of(FULL.pretrained)
    assert origin.address.startswith("https://")
    assert origin.path == tmp_path / "hub/checkpoints" / origin.address.rpartition("/")[2]
    assert str(tmp_path / "hub") == torch.hub.get_dir()
