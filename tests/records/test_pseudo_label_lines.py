"""A line of pseudo_labels.jsonl, written and read again."""

from __future__ import annotations

import json
from pathlib import Path

from cissod_bench.records.pseudo_label_lines import PseudoLabelLine, read_lines
from cissod_bench.records.run_folder import PSEUDO_LABELS


def test_a_number_of_a_method_may_have_any_name_even_more(tmp_path: Path) -> None:
    counted = {"generation": 1, "iteration": 2, "group": "all", "images": 3, "detected": 4, "correct": 2}
    line = PseudoLabelLine.of({**counted, "more": 0.5, "queue": 5})
    assert line.more == {"more": 0.5, "queue": 5}
    (tmp_path / PSEUDO_LABELS).write_text(json.dumps(line.written()) + "\n", encoding="utf-8")
    assert json.loads((tmp_path / PSEUDO_LABELS).read_text(encoding="utf-8"))["more"] == 0.5
    (read,) = read_lines(tmp_path)
    assert read.written() == {name: value for name, value in line.written().items() if name not in line.more}
