"""Runs the steps of a Dockerfile where no Docker is: in folders that stand for its images, by chroot. Root, Linux.

    python scripts/container_steps.py --base FOLDER --work FOLDER [--file Dockerfile] [--also PATH[=INSIDE]]...
        [--env NAME=VALUE]... [--steps 0] [-- COMMAND...]

Each step is read from the Dockerfile, so that none can be forgotten. A stage is a folder below --work that begins as a
copy of --base or of the stage it is made from; a base is what `debootstrap --include=python3,python3-venv,python3-dev
bookworm FOLDER` makes, say. COPY takes what .dockerignore lets through. --also and --env add what only this network
needs (a certificate, the address of an index) or what saves time (a cache); they are not in the image. At the end
COMMAND, else the Dockerfile's own CMD, runs as its USER in the last stage. --steps 0 prints the steps and runs none.

What this does not show: the base images themselves, how Docker keeps layers, and a container's limits.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INSIDE = """
mount --bind /dev "$0/dev" && mount -t tmpfs -o mode=1777 tmpfs "$0/dev/shm" && mount -t proc proc "$0/proc" &&
    exec chroot --userspec="$1" "$0" "${@:2}"
"""
"""Run by bash in a mount namespace of its own: the mounts end with it."""


@dataclass(frozen=True)
class Stage:
    """One FROM and its steps.

    Attributes:
        base: the image, or the name of the stage that it is made from.
        name: behind AS; "" where there is none.
        steps: instruction and its text, in order.
    """

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield a Dockerfile's instructions with their text; continued lines are one, comments are left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), " ".join(rest.split())


def stages(text: str) -> list[Stage]:
    """Return a Dockerfile's stages; the values of what stands as ARG before the first of them are filled in."""
    found: list[Stage] = []
    values: dict[str, str] = {}
    for word, rest in instructions(text):
        if word == "FROM":
            base, _, name = filled(rest, values).partition(" AS ")
            found.append(Stage(base, name))
        elif found:
            found[-1].steps.append((word, rest))
        elif word == "ARG":
            values |= dict([rest.split("=", 1)])
    return found


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with ``$NAME`` and ``${NAME}`` filled in; "" for a name without a value."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: values.get(match.group(1), ""), text)


def let_through(ignored: str) -> list[str]:
    """Return which names .dockerignore lets through; it must leave out everything else first, as ours does."""
    lines = ignored.split()
    if lines[0] != "*":
        raise ValueError(".dockerignore does not begin with *: what else it leaves out is not known here")
    return [line[1:] for line in lines if line.startswith("!")]


@dataclass
class Image:
    """A folder that stands for an image, and what its instructions have set so far.

    Attributes:
        folder: its root.
        environment: variables of ENV and ARG, PATH first.
        user: number or name.
        workdir: where commands run.
        command: of CMD.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    user: str = "root"
    workdir: str = "/"
    command: list[str] = field(default_factory=list)

    def home(self) -> str:
        """Return the user's home by the image's own list of users, as Docker does; "/" for one that is not there."""
        users = (self.folder / "etc/passwd").read_text(encoding="utf-8").splitlines()
        homes = [parts[5] for parts in (line.split(":") for line in users) if self.user in (parts[0], parts[2])]
        return homes[0] if homes else "/"

    def words(self, command: Sequence[str], more: Mapping[str, str]) -> list[str]:
        """Return the command line that runs a command in this image, under more variables."""
        variables = {"HOME": self.home(), **self.environment, **more}
        shell = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *command]
        settings = [f"{name}={value}" for name, value in variables.items()]
        return [
            *("unshare", "--mount", "bash", "-c", INSIDE, str(self.folder), f"{self.user}:{self.user}"),
            *("/usr/bin/env", "-i", *settings, *shell),
        ]

    def take(self, source: Path, target: str, ignore: Sequence[str] = ()) -> None:
        """Copy a file or folder to a place in this image, relative to its WORKDIR; names to ignore are patterns."""
        place = self.folder / (Path(self.workdir) / target).relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            left_out = shutil.ignore_patterns(*ignore)
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True, ignore=left_out)
        else:
            shutil.copy2(source, place)


@dataclass
class Build:
    """The build of one Dockerfile.

    Attributes:
        base: the folder that stands for its base images.
        work: where the stages lie.
        also: what is copied into each image first, by its place there.
        more: variables of every command, which are in no image.
        images: made so far, by the name of their stage.
    """

    base: Path
    work: Path
    also: Mapping[str, Path]
    more: Mapping[str, str]
    images: dict[str, Image] = field(default_factory=dict)

    def stage(self, stage: Stage) -> Image:
        """Make one stage, and return its image."""
        parent = self.images.get(stage.base, Image(self.base))
        name = stage.name or "last"
        image = Image(self.work / name, dict(parent.environment), parent.user, parent.workdir)
        print(f"== FROM {stage.base} AS {name}", flush=True)
        shutil.rmtree(image.folder, ignore_errors=True)
        subprocess.run(("cp", "-a", "--reflink=auto", str(parent.folder), str(image.folder)), check=True)
        for inside, path in self.also.items():
            image.take(path, inside)
        self.images[name] = image
        for word, text in stage.steps:
            self.step(image, word, text)
        return image

    def step(self, image: Image, word: str, text: str) -> None:
        """Do what one instruction says."""
        started = time.monotonic()
        print(f"-- {word} {text}", flush=True)
        if word == "RUN":
            self.run(image, ("/bin/sh", "-c", text))
            print(f"   {time.monotonic() - started:.0f} s", flush=True)
        elif word == "COPY":
            self.copy(image, text.split())
        elif word in ("ENV", "ARG"):
            name, equals, value = shlex.split(text)[0].partition("=")
            if equals:
                image.environment[name] = filled(value, image.environment)
        elif word == "USER":
            image.user = text
        elif word == "WORKDIR":
            image.workdir = str(Path(image.workdir) / text)
            (image.folder / image.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "CMD":
            image.command = list(json.loads(text))
        else:
            raise ValueError(f"{word} is not known here")

    def copy(self, image: Image, words: list[str]) -> None:
        """Copy from another stage, or what .dockerignore lets through of this checkout."""
        if words[0].startswith("--from="):
            origin = self.images[words[0].partition("=")[2]].folder
            image.take(origin / words[1].lstrip("/"), words[2])
            return
        for name in let_through((ROOT / ".dockerignore").read_text(encoding="utf-8")):
            image.take(ROOT / name, f"{words[1]}/{name}", ("__pycache__",))

    def run(self, image: Image, command: Sequence[str]) -> None:
        """Run a command in an image; the whole ends with its exit code where that is not 0."""
        code = subprocess.call(image.words(command, self.more))
        if code:
            sys.exit(f"exit code {code}: {shlex.join(command)}")


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value or name


def main() -> None:
    """Run the steps of the Dockerfile that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", default="Dockerfile")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--also", type=_pair, action="append", default=[])
    parser.add_argument("--env", type=_pair, action="append", default=[])
    parser.add_argument("--steps", choices=("0", "all"), default="all")
    parser.add_argument("command", nargs="*")
    words = parser.parse_args()
    found = stages((ROOT / words.file).read_text(encoding="utf-8"))
    if words.steps == "0" or not (words.base and words.work):
        print(*(f"{word} {text}" for stage in found for word, text in (("FROM", stage.base), *stage.steps)), sep="\n")
        return
    build = Build(words.base, words.work, {inside: Path(path) for path, inside in words.also}, dict(words.env))
    words.work.mkdir(parents=True, exist_ok=True)
    image = [build.stage(stage) for stage in found][-1]
    command = words.command or image.command
    print(f"== as user {image.user}: {shlex.join(command)}", flush=True)
    build.run(image, command)


if __name__ == "__main__":
    main()
