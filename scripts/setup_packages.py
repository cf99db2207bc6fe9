"""Installs packages into .venv: by uv where it can do what pip would, else by pip. Standard library only.

uv takes seconds where pip takes minutes, because it links files out of its cache. It does not read pip's settings, so
they are handed to it; with a setting that it has no word for, pip installs.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WORDS = {  # pip's setting: uv's variable, and what stands between several values there
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
}
_NEUTRAL = (
    "disable-pip-version-check no-input progress-bar quiet verbose no-color cache-dir retries config-file log"
    " require-virtualenv no-warn-script-location root-user-action"
)
NEUTRAL = frozenset(_NEUTRAL.split())
"""Settings of pip that change nothing about what is installed."""


def translated(listing: str) -> dict[str, str] | None:
    """Return uv's environment variables that say what pip's settings say, or None where uv cannot be told.

    Args:
        listing: what ``pip config list`` prints: ``section.key='value'`` a line, weakest section first or not.
    """
    order = {"global": 0, "install": 1, ":env:": 2}  # pip's: the environment counts before files
    settings: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        name, equals, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if not equals or section not in order or key in NEUTRAL:
            continue  # of other commands of pip
        if key not in WORDS:
            return None
        settings[key] = max(settings.get(key, (-1, "")), (order[section], str(ast.literal_eval(value))))
    return {WORDS[key][0]: WORDS[key][1].join(value.split()) for key, (_, value) in settings.items()}


@dataclass(frozen=True)
class Installer:
    """Installs into one environment, and writes what the installers say to a log.

    Attributes:
        python: the environment's interpreter.
        log: a file that their output is appended to.
        environment: the variables that they see.
    """

    python: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def _pip(self) -> list[str]:
        return [self.python, "-m", "pip", "--disable-pip-version-check"]

    def ask(self, *arguments: str) -> str | None:
        """Return what pip prints, or None where it fails; complaints go to the log."""
        with self.log.open("a", encoding="utf-8") as log:
            command = [*self._pip(), *arguments]
            done = subprocess.run(
                command, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True, check=False
            )
        return done.stdout if done.returncode == 0 else None

    def by_pip(self, *arguments: str) -> bool:
        """Install with pip; whether it succeeded."""
        return self._run([*self._pip(), "install", *arguments], {})

    def wheel(self, arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Make a wheel with pip under other variables; whether it succeeded."""
        return self._run([*self._pip(), "wheel", *arguments], environment)

    def download(self, *arguments: str) -> bool:
        """Download with pip and install nothing; whether it succeeded."""
        return self._run([*self._pip(), "download", *arguments], {})

    def by_uv(self, *arguments: str) -> bool:
        """Install with uv, under pip's settings; False too where there is no uv or it cannot be told the settings."""
        uv, settings = self.uv(), self.uv_settings()
        if uv is None or settings is None:
            return False
        return self._run([uv, "pip", "install", "--python", self.python, *arguments], settings)

    def install(self, *arguments: str) -> bool:
        """Install with uv, and with pip where that fails: arguments that both understand."""
        return self.by_uv(*arguments) or self.by_pip(*arguments)

    def uv(self) -> str | None:
        """Return the uv to run: the one that the variable UV names (``no``: none), else the environment's."""
        named = self.environment.get("UV", "")
        if named == "no":
            return None
        beside = Path(self.python).parent / "uv"
        return named or (str(beside) if beside.is_file() else None)

    def uv_settings(self) -> dict[str, str] | None:
        """Return the variables for uv; those that the user has set for uv count before pip's settings."""
        listing = self.ask("config", "list")
        settings = None if listing is None or self._borrows() else translated(listing)
        if settings is None:
            return None
        # As pip does: the best version of all indexes, not the first index that knows the name.
        settings = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_LINK_MODE": "hardlink", **settings}
        return {name: value for name, value in settings.items() if name not in self.environment}

    def _borrows(self) -> bool:
        """Whether the environment sees packages of the interpreter below it, which uv would install again."""
        stated = Path(self.python).parent.parent / "pyvenv.cfg"
        return stated.is_file() and "include-system-site-packages = true" in stated.read_text(encoding="utf-8")

    def _run(self, command: list[str], more: Mapping[str, str]) -> bool:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n")
            log.flush()
            try:
                return not subprocess.call(command, env={**self.environment, **more}, stdout=log, stderr=log)
            except OSError as error:  # a uv that cannot be started
                log.write(f"{error}\n")
                return False


if __name__ == "__main__":
    sys.exit(not Installer(sys.executable, Path(sys.argv[1])).install(*sys.argv[2:]))
