"""Print how good a finished run's teacher would label D_u at other thresholds, per class and per group.

``python scripts/threshold_curve.py RUN_FOLDER --work-dir work --data-root data`` lets the teacher of the run's last
checkpoint look at some images of D_u, in the view that images are scored in, and judges its detections above each
threshold by the hidden boxes, as Fig. 3 is judged: "recall / precision" in percent. Nothing of it reaches a training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cissod_bench.catalogue import load_method, load_task
from cissod_bench.contract.parts import Detections
from cissod_bench.records.run_folder import read_record
from cissod_bench.running.assembly import prepare
from cissod_bench.running.plan import Plan
from cissod_bench.running.rescoring import plan_of
from cissod_bench.training.judging import HiddenBoxes, Looks, judge, read_hidden
from cissod_bench.training.predict import detections

THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)


def plan_at(run: Path, work_dir: Path, data_root: Path) -> Plan:
    """Return the plan of a run that has been, with the settings of its record.

    Args:
        run: the run's folder.
        work_dir: that the run was written to.
        data_root: where data sets lie.
    """
    record = read_record(run)
    task, method = load_task(record.task), load_method(record.method)
    return plan_of(record, run, task, method, data_root=data_root, work_dir=work_dir)


def looks_of(found: Sequence[Detections], above: float) -> Looks:
    """Return the detections above a threshold as columns.

    Args:
        found: image by image.
        above: the threshold, in [0, 1].
    """
    kept = [image.scores > above for image in found]
    columns = [
        torch.cat([getattr(image, name)[rows] for image, rows in zip(found, kept, strict=True)]).cpu().numpy()
        for name in ("boxes", "labels", "scores")
    ]
    images = np.array([image.image_id for image in found], np.int64)
    ends = np.cumsum([int(rows.sum()) for rows in kept], dtype=np.int64)
    return Looks(images, ends, columns[0].astype(np.float32), columns[1], columns[2].astype(np.float32))


def printed(plan: Plan, hidden: HiddenBoxes, found: Sequence[Detections]) -> None:
    """Print a table: a row per class and group, a column per threshold."""
    channels = {name: [channel] for channel, name in enumerate(plan.classes)}
    channels |= {group: [plan.classes.index(name) for name in names] for group, names in plan.groups.items()}
    counts = [judge(looks_of(found, theta), hidden, len(plan.classes)) for theta in THRESHOLDS]
    print(f"{'':16}{'boxes':>7}" + "".join(f"{theta:>13}" for theta in THRESHOLDS))
    for name, rows in channels.items():
        boxes = counts[0][0, rows].sum()
        cells = []
        for _, detected, correct in (count[:, rows].sum(axis=1) for count in counts):
            precision = f"{100 * correct / detected:.0f}" if detected else "-"
            cells.append(f"{100 * correct / max(boxes, 1):.0f} / {precision}")
        print(f"{name:16}{boxes:>7}" + "".join(f"{cell:>13}" for cell in cells))


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--work-dir", type=Path, default=Path("work"))
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--images", type=int, default=400, help="of D_u, the first of a fixed order")
    chosen = parser.parse_args()
    plan = plan_at(chosen.run, chosen.work_dir, chosen.data_root)
    hidden = read_hidden(plan.split / "hidden.json", plan.classes, plan.naming, doubtful=plan.task.swapped)
    if hidden is None:
        parser.error("the split has no hidden boxes")
    training = prepare(plan, torch.device("cpu"))
    if not training.resume():
        parser.error(f"{chosen.run} holds no checkpoint")
    unlabelled = training.dataset.sources[1]
    rows = np.random.default_rng(0).permutation(len(unlabelled))[: chosen.images].tolist()
    found = list(detections(training.detector, unlabelled, plan.settings, rows))
    done = training.position.iteration
    print(f"{plan.method.name} {plan.variant} after iteration {done}, {len(rows)} images: recall / precision")
    printed(plan, hidden, found)


if __name__ == "__main__":
    main()
