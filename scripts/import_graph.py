"""The import graph of ``cissod_bench``: which wing imports which, what imports upward, what imports in a circle.

    python scripts/import_graph.py [CHECKOUT]

Every import counts, also those inside functions and below ``TYPE_CHECKING``. ``tests/test_layout.py`` fails for a
circle and for an import that runs upward; the order of the wings stands here.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

WINGS = (
    "controls",
    "errors",
    "extras",
    "declared",
    "terminal",
    "quiet",
    "allocator",
    "signals",
    "messages",
    "distributed",
    "files",
    "annotations",
    "splitting",
    "scoring",
    "contract",
    "records",
    "catalogue",
    "split_folders",
    "backbones",
    "detector",
    "loading",
    "training",
    "launching",
    "running",
    "sweeping",
    "keeping",
    "using",
    "exam",
    "reporting",
    "figures",
    "looking",
    "rendering",
    "doctor",
    "advice",
    "api",
    "cli",
)
"""Ground floor first: a wing (a package, or a module on the ground floor) imports from those before it and itself."""

PACKAGE = "cissod_bench"


def modules(checkout: Path) -> dict[str, Path]:
    """Return dotted name -> file of every module of the package; the package itself is ``""``."""
    core = checkout / PACKAGE
    paths = sorted(core.rglob("*.py"))
    parts = ((path.relative_to(core).with_suffix("").parts, path) for path in paths)
    return {".".join(name for name in names if name != "__init__"): path for names, path in parts}


def imported(tree: ast.AST, known: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    """Yield the module of the package and the line of every import in a syntax tree, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, inner = name.partition(".")
            if first == PACKAGE:
                yield (inner if inner in known else inner.rpartition(".")[0]), node.lineno


def import_graph(checkout: Path) -> dict[str, dict[str, int]]:
    """Return module -> {module it imports: line of the first import}; an import of the bare package is left out."""
    known = modules(checkout)
    graph: dict[str, dict[str, int]] = {}
    for name, path in known.items():
        targets: dict[str, int] = {}
        for target, line in imported(ast.parse(path.read_text(encoding="utf-8")), known):
            if target and target != name:
                targets.setdefault(target, line)
        graph[name] = targets
    return graph


def wing(module: str) -> str:
    """Return the wing a module lives in: the first part of its dotted name."""
    return module.partition(".")[0]


def upward(graph: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return every import that runs from a lower wing to a higher one, and every module outside the order."""
    floors = {name: floor for floor, name in enumerate(WINGS)}
    wrong = [
        f"{name}: {wing(name)} is no wing"
        for name in graph
        if name not in ("", "__main__") and wing(name) not in floors
    ]
    for name, targets in graph.items():
        for target, line in targets.items():
            if floors.get(wing(target), -1) > floors.get(wing(name), len(WINGS)):
                wrong.append(f"{name}, line {line}: imports {target}, which is above it")
    return wrong


def circles(graph: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle (strongly connected, two or more)."""
    reached = {name: _reached(graph, name) for name in graph}
    groups = {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in graph}
    return sorted(list(group) for group in groups if len(group) > 1)


def _reached(graph: Mapping[str, Mapping[str, int]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), {}):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def main() -> None:
    """Print the graph of this checkout or of the one named."""
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    graph = import_graph(checkout)
    wings: dict[str, list[str]] = {}
    for name in graph:
        if name:
            wings.setdefault(wing(name), []).append(name)
    for name in sorted(wings, key=lambda place: (WINGS.index(place) if place in WINGS else len(WINGS), place)):
        inside = [module for module in wings[name] if module != name]
        below = sorted({wing(target) for module in wings[name] for target in graph[module]} - {name})
        print(f"{name:16} {len(inside) or '':>3} <- {', '.join(below)}")
    print(f"{len(graph)} modules, {sum(len(targets) for targets in graph.values())} imports")
    ground = [name for name in wings if wings[name] == [name]]
    print(f"on the ground floor: {len(ground)} modules")
    for line in upward(graph):
        print("upward:", line)
    for group in circles(graph):
        print("circle:", ", ".join(group))


if __name__ == "__main__":
    main()
