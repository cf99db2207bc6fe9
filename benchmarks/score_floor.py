"""What the score floor takes from AP: finished runs, scored again with lower floors.

Detections at or below .05 are not kept (the paper's and the field's rule on MS-COCO). A detector that is rarely sure
of a class loses recall of that class to the floor, whatever the order of its scores. The teacher of every run folder
given predicts the scored images anew, once a floor. Run ``.venv/bin/python benchmarks/score_floor.py FOLDER ...`` from
the root of the repository with folders of runs on built-in tasks that still have their ``checkpoint.pth``; data is
looked for as by the command line (``CISSOD_DATA``, else ``data/``).
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cissod_bench.catalogue import load_task
from cissod_bench.catalogue.method_files import find_method
from cissod_bench.records.run_folder import read_record
from cissod_bench.running.assembly import pick_device, prepare, scored_images
from cissod_bench.running.plan import Plan
from cissod_bench.running.rescoring import plan_of, word_of
from cissod_bench.scoring import evaluate
from cissod_bench.training.predict import predict
from cissod_bench.training.result_files import write_predictions

FLOORS = (0.05, 0.01, 0.001)
DEPTH = 6  # WORK-DIR/runs/task/split/method/scale/seed


def plan_at(folder: Path) -> Plan:
    """Return the plan that a run folder was made by, its settings as recorded."""
    record = read_record(folder / "run.json")
    work_dir = folder.resolve().parents[DEPTH - 1]
    method = find_method(word_of(record.command, "--method") or record.method)  # a file's path, where it is one
    data_root = Path(os.environ.get("CISSOD_DATA", "data"))
    return plan_of(record, folder, load_task(record.task), method, data_root=data_root, work_dir=work_dir)


def points(folder: Path) -> dict[float, dict[str, float | None]]:
    """Return AP by group at every floor."""
    plan = plan_at(folder)
    training = prepare(plan, pick_device())
    if not training.resume():
        raise SystemExit(f"{folder} has no checkpoint.")
    source, category_ids = scored_images(plan)
    found: dict[float, dict[str, float | None]] = {}
    for floor in FLOORS:
        settings = training.detector.settings = replace(plan.settings, score_floor=floor)
        with TemporaryDirectory() as place:
            file = Path(place) / "predictions.json.gz"
            write_predictions(file, predict(training.detector, source, settings, teacher=True), category_ids)
            scores = evaluate.score(
                plan.val,
                file,
                groups=plan.groups,
                max_dets=plan.task.max_dets,
                metric=plan.task.metric,
                check_boxes=False,
            )
        found[floor] = dict(scores.columns)
    return found


def main() -> None:
    """Print one line per run."""
    if len(sys.argv) == 1:
        raise SystemExit("Name the folders of finished runs.")
    for text in sys.argv[1:]:
        folder = Path(text)
        cells = []
        for floor, columns in points(folder).items():
            shown = " / ".join("-" if value is None else f"{value:.1f}" for value in columns.values())
            cells.append(f"floor {floor:g}: {shown}")
        print(f"{folder.parents[1].name}, {folder.name}  " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
