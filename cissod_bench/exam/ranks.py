"""Two processes with half the data each: does every method's state stay the same on both?

One start of the processes serves any number of methods; each rank writes what it holds, and who started them compares.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench import distributed
from cissod_bench.catalogue.method_files import find_method
from cissod_bench.errors import BenchError
from cissod_bench.exam.desk import CPU, Desk
from cissod_bench.exam.fingerprint import different, run, some, watch
from cissod_bench.exam.outcome import Broken, Outcome, judged, told
from cissod_bench.exam.trained import Runs
from cissod_bench.files.whole_files import write_json
from cissod_bench.launching.ranks import launch

PROCESSES = 2
PATIENCE = 900  # seconds until ranks that wait for each other are ended


def sit_as_rank(named: Sequence[str], desk: Desk) -> None:
    """Train each method as one of the ranks and write what this rank holds; an error ends the process.

    Args:
        named: the methods, by name or file.
        desk: its split is there, because ranks must not draw it at the same time.
    """
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    distributed.start(CPU)
    try:
        for number, name in enumerate(named):
            try:
                answer: dict[str, Any] = {"state": _state(name, desk)}
            except Exception as error:  # the other rank may wait for this one: end both
                write_json(_answer(desk, number, distributed.rank()), {"error": told(error), "when": time.time()})
                raise
            write_json(_answer(desk, number, distributed.rank()), answer)
    finally:
        distributed.stop()
        faulthandler.cancel_dump_traceback_later()


def _state(name: str, desk: Desk) -> dict[str, str]:
    """Train N iterations, across the begin of a generation, and return the hashes of models and parts."""
    seen = run(watch(Runs.of(find_method(name), desk).start("ranks")), until=desk.half)
    state = seen.state()
    return {name: text for name, text in state.items() if not name.startswith("checkpoint extra")}


def _answer(desk: Desk, number: int, rank: int) -> Path:
    return desk.work / "ranks" / f"{number}-{rank}.json"


def check_processes(named: Sequence[str], desk: Desk, words: Sequence[str]) -> list[Outcome]:
    """Return the outcome of "processes" of every method, in their order.

    Args:
        named: the methods, by name or file.
        desk: the parent's; its split is drawn.
        words: the command line that makes a process call `sit_as_rank` at this desk, without the methods.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < len(named):  # the method at which the ranks end is judged, and the rest started anew
        left = named[len(outcomes) :]
        answers, ended = _answers(left, desk, [*words, *left])
        outcomes += [judged("processes", partial(_agree, of_method)) for of_method in answers]
        if len(answers) < len(left):
            outcomes.append(Outcome("processes", "FAIL", ended))
    return outcomes


def _answers(named: Sequence[str], desk: Desk, words: Sequence[str]) -> tuple[list[list[Mapping[str, Any]]], str]:
    """Start the ranks; return both answers of every method up to the one that ended them, and how it ended them."""
    places = [[_answer(desk, number, rank) for rank in range(PROCESSES)] for number in range(len(named))]
    for place in (place for both in places for place in both):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
    output = desk.work / "ranks" / "output.txt"
    ended = "the two processes ended without an answer"
    try:
        with output.open("wb") as stream:
            launch(PROCESSES, words, output=stream)
    except BenchError as fault:  # a rank was killed
        ended = f"{ended}: {_last_words(output) or fault.message}"
    except SystemExit:  # a rank failed and has said so
        ended = f"{ended}: {_last_words(output)}"
    answers: list[list[Mapping[str, Any]]] = []
    for both in places:
        of_method = [msgspec.json.decode(place.read_bytes()) for place in both if place.exists()]
        errors = sorted((answer["when"], answer["error"]) for answer in of_method if "error" in answer)
        if errors or len(of_method) < PROCESSES:  # the other rank fails, too, when the first one has gone
            return answers, f"a rank fails: {errors[0][1]}" if errors else ended
        answers.append(of_method)
    return answers, ended


def _last_words(output: Path) -> str:
    """Return the last line that says something about an error."""
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if "Error" in line or "Timeout" in line), "")


def _agree(answers: Sequence[Mapping[str, Any]]) -> str:
    first, second = (answer["state"] for answer in answers)
    names = different(first, second)
    if names:
        # The parts first: of them the models' differences may come.
        names.sort(key=lambda name: not name.startswith("parts."))
        raise Broken(f"{some(names)} differs between the ranks: Context.sum_over_ranks adds what they collect")
    parts = sum(name.startswith("parts.") for name in first)
    return f"{parts} tensors of the parts and {len(first) - parts} of the models are equal"
