"""A package index on 127.0.0.1 with tiny wheels, for set-up: the plain one that pip asks, and PyTorch's that uv asks.

uv knows PyTorch's index by its name and over TLS, so the server is a proxy, too: it answers for every host name with a
certificate made here, and nothing leaves the machine.
"""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import ssl
import subprocess
import threading
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CUDA = "nvidia-cublas"


def tiny_wheel(name: str, version: str, *requires: str) -> tuple[str, bytes]:
    """Return the file name and the bytes of a wheel that holds one module: its version."""
    stem, module = f"{name.replace('-', '_')}-{version}", name.replace("-", "_")
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    files = {
        f"{module}/__init__.py": f"__version__ = {version!r}\n",
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{path},{_hashed(text.encode())},{len(text.encode())}\n" for path, text in files.items()]
    files[f"{stem}.dist-info/RECORD"] = "".join([*lines, f"{stem}.dist-info/RECORD,,\n"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return f"{stem}-py3-none-any.whl", buffer.getvalue()


def _hashed(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


@dataclass
class Index:
    """A server that is up: what it holds and what it was asked.

    Attributes:
        folder: for its certificates.
        pages: the first parts of a path -> the wheels below it, file name -> bytes. "simple" is the plain index.
        asked: every path that was asked for, with the host if it came through the proxy.
    """

    folder: Path
    pages: dict[str, dict[str, bytes]]
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def certificate(self, host: str) -> Path:
        """Return a file with key and certificate for a host, signed by ``authority.pem``."""
        made = self.folder / f"{host}.pem"
        if not made.exists():
            _openssl(self.folder, host)
        return made

    def answer(self, path: str) -> tuple[bytes, str] | None:
        """Return the page or wheel of a path with its content type."""
        parts = path.strip("/").split("/")
        for place, wheels in self.pages.items():
            depth = len(place.split("/"))
            if "/".join(parts[:depth]) != place or len(parts) <= depth:
                continue
            if parts[-1] in wheels:
                return wheels[parts[-1]], "application/octet-stream"
            mine = [file for file in wheels if file.startswith(parts[depth].replace("-", "_") + "-")]
            links = "".join(f'<a href="/{place}/{parts[depth]}/{file}">{file}</a>\n' for file in mine)
            return (f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html") if mine else None
        return None


def _openssl(folder: Path, host: str) -> None:
    """Write ``authority.pem`` once, and a certificate of the host that it signs."""

    def run(*arguments: str) -> None:
        subprocess.run(("openssl", *arguments), cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    if not (folder / "authority.pem").exists():
        run("req", "-x509", *key, "-keyout", "authority.key", "-out", "authority.pem", "-subj", "/CN=test")
    run("req", *key[:-2], "-keyout", f"{host}.key", "-out", f"{host}.csr", "-subj", "/CN=host")
    (folder / f"{host}.ext").write_text(f"subjectAltName=DNS:{host}\nbasicConstraints=CA:FALSE\n", encoding="utf-8")
    signed = ("-CA", "authority.pem", "-CAkey", "authority.key", "-set_serial", "7", "-days", "2")
    run("x509", "-req", "-in", f"{host}.csr", *signed, "-extfile", f"{host}.ext", "-out", f"{host}.crt")
    both = [(folder / f"{host}.{end}").read_text(encoding="utf-8") for end in ("key", "crt")]
    (folder / f"{host}.pem").write_text("".join(both), encoding="utf-8")


def _handler(index: Index) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        host = ""

        def do_GET(self) -> None:
            index.asked.append(self.host + self.path)
            found = index.answer(self.path)
            body, kind = found or (b"not here", "text/plain")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def do_CONNECT(self) -> None:
            self.host = self.path.partition(":")[0]
            self.send_response(200)
            self.end_headers()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(index.certificate(self.host))
            with suppress(OSError):
                self.connection = context.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def serve(index: Index) -> ThreadingHTTPServer:
    """Start the server on a free port of 127.0.0.1 in a thread; ``shutdown()`` ends it."""
    _openssl(index.folder, "localhost")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(index))
    server.daemon_threads = True
    index.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def closed_address() -> str:
    """Return an address of this machine where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
