"""scripts/container_steps.py reads every step of our Dockerfiles, and what those steps call exists in this checkout."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from container_steps import Build, Image, Stage, instructions, let_through, stages

ROOT = Path(__file__).resolve().parents[1]
FILES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("Dockerfile", "Dockerfile.cuda")}
SMALL = """\
# a comment
ARG RELEASE=12
FROM image:${RELEASE} AS tools
# of the next line
RUN first \\
    # in between
    && second   third
FROM tools
ARG CARDS="8.0;9.0"
ARG RELEASE
ENV PATH=/opt/bin:$PATH
WORKDIR /opt
"""


def test_stages_are_read_with_their_values_and_continued_lines_are_one() -> None:
    arguments = [("ARG", 'CARDS="8.0;9.0"'), ("ARG", "RELEASE")]
    assert stages(SMALL) == [
        Stage("image:12", "tools", [("RUN", "first && second third")]),
        Stage("tools", "", [*arguments, ("ENV", "PATH=/opt/bin:$PATH"), ("WORKDIR", "/opt")]),
    ]


@pytest.mark.parametrize("name", FILES)
def test_no_step_of_ours_is_left_out(name: str) -> None:
    found = stages(FILES[name])
    steps = [step for stage in found for step in stage.steps]
    assert len(steps) + len(found) == len(list(instructions(FILES[name]))) - 1  # ARG before the first FROM
    written = sum(len(re.findall(rf"^{word} ", FILES[name], re.MULTILINE)) for word in ("RUN", "COPY"))
    assert len([word for word, _ in steps if word in ("RUN", "COPY")]) == written > 3


@pytest.mark.parametrize("name", FILES)
def test_what_the_steps_call_and_copy_is_there(name: str) -> None:
    found = stages(FILES[name])
    texts = " && ".join(text for stage in found for word, text in stage.steps if word == "RUN")
    words = "".join(re.findall(r" make ((?:\S+=\S+ )*setup)\b", texts)).split()
    assert words[-1:] == ["setup"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    script = (ROOT / "scripts/setup.sh").read_text(encoding="utf-8")
    assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in words if "=" not in word)
    assert all(f"#   {word.partition('=')[0]} " in script for word in words if "=" in word)
    copied = {word for stage in found for kind, text in stage.steps if kind == "COPY" for word in text.split()}
    names = {word.partition("=")[2] for word in copied if word.startswith("--from=")}
    assert names <= {stage.name for stage in found}
    assert let_through((ROOT / ".dockerignore").read_text(encoding="utf-8"))


def test_a_command_runs_as_the_image_s_user_in_its_folder_with_its_variables_alone(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nbench:x:1001:1001::/home/bench:/bin/sh\n")
    image = Image(tmp_path)
    build = Build(tmp_path, tmp_path, {}, {})
    for word, text in (("ENV", "PATH=/opt/bin:$PATH"), ("USER", "1001"), ("WORKDIR", "/home"), ("WORKDIR", "bench")):
        build.step(image, word, text)
    words = image.words(("cissod-bench", "demo"), {"PIP_CERT": "/a"})
    assert f"{tmp_path} 1001:1001 /usr/bin/env -i HOME=/home/bench PATH=/opt/bin:" in shlex.join(words)
    assert words[-3:] == ["/home/bench", "cissod-bench", "demo"]
    assert (tmp_path / "home/bench").is_dir()


def test_only_what_dockerignore_lets_through_is_copied_and_other_forms_of_it_are_refused(tmp_path: Path) -> None:
    Build(tmp_path, tmp_path, {}, {}).step(Image(tmp_path / "image", workdir="/opt"), "COPY", ". .")
    assert {path.name for path in (tmp_path / "image/opt").iterdir()} == set(
        let_through((ROOT / ".dockerignore").read_text(encoding="utf-8"))
    )
    assert not list((tmp_path / "image").rglob("__pycache__"))
    with pytest.raises(ValueError, match="does not begin with"):
        let_through("work\n")
