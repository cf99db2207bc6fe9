"""Time a training step: ours against our Soft Teacher, our Soft Teacher against mmdet's own, any method against it.

Both sides of a comparison have the same weights, images and random draws and take turns, each being the first of a pair
every other time; what is compared is the median of the pairs' ratios. A step is forward, backward, the optimiser, the
teacher's update and the method's state; images are drawn and copied before the clock starts, and the start of a
generation and checkpoints are left out. The learning rate is next to nothing, so that the work stays the same, and
thresholds are set so that the random teacher finds about as many pseudo labels an image as a trained one. Memory is the
peak of a process of its own (on a GPU, of what torch allocated).

Wanted: at most 1.05 for ours, 1.03 for Soft Teacher. Run ``.venv/bin/python benchmarks/step_time.py`` from the root of
the repository; ``--methods all`` compares every method that has a teacher with Soft Teacher instead, each in its last
stage and with the same thresholds: a classifier with other scores (EQLv2's sigmoids) finds another number of pseudo
labels, as it would at the start of a training. ``--preset full --device cuda`` is the paper's detector, ``--help``
lists the rest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet.engine.hooks import MeanTeacherHook
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes  # noqa: F401  registers box types
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from cissod_bench.catalogue import list_methods, load_method, load_task
from cissod_bench.contract.method import USES_UNLABELLED, RunFacts
from cissod_bench.contract.parts import Context
from cissod_bench.contract.presets import preset
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.exam.cost import Batch, Step, in_turns
from cissod_bench.files.hashing import mix
from cissod_bench.loading.sampler import TwoSourceSampler
from cissod_bench.training.loop import Training, make_optimiser
from cissod_bench.training.pseudo_quality import PseudoLabelStatistics

WANTED = {("ours", "soft-teacher"): 1.05, ("soft-teacher", "mmdet"): 1.03}
ITERATIONS, FIRST = 100_000, 50_000  # far behind every warm-up
WARM_UP = 5  # pairs that are not counted
PSEUDO_LABELS = 5  # detections an image above the initial threshold, half of them above theta
LOGITS, DELTAS = 4.0, 0.3  # standard deviation of the random heads' output
BOXES = 5  # of a labelled image


def settings_of(name: str) -> Settings:
    """Return a preset's settings without what would change the work from step to step."""
    chosen = preset(name, task_iterations=ITERATIONS)
    return replace(
        chosen, iterations=ITERATIONS, generations=10, pretrained="", unsup_start=0.0, lr=1e-12, warmup_iterations=0
    )


def draw_view(rng: np.random.Generator, settings: Settings, classes: int, number: int, boxes: int = 0) -> Any:
    """Return a random image at the preset's largest size, as the transforms pack it."""
    height, width = settings.short_side[1], settings.long_side
    height = min(height, width * 3 // 5)
    sample = DetDataSample(
        metainfo={
            "img_id": number, "img_index": number, "img_shape": (height, width), "ori_shape": (height, width),
            "scale_factor": (1.0, 1.0), "homography_matrix": np.eye(3, dtype=np.float32),
        }
    )  # fmt: skip
    corner = rng.uniform(0, 0.6, (boxes, 2)) * (width, height)
    truth = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (boxes, 2)) * (width, height)], axis=1)
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(truth.astype(np.float32)), labels=torch.from_numpy(rng.integers(0, classes, boxes))
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    # Patches of colour and not single pixels of it, which would look the same in every proposal.
    patches = torch.from_numpy(rng.integers(0, 255, (1, 3, 8, 12), dtype=np.uint8))
    image = nn.functional.interpolate(patches, size=(height, width), mode="nearest")[0]
    return {"inputs": image, "data_samples": sample}


def draw_batch(seed: int, settings: Settings, classes: int) -> Batch:
    """Return labelled images, and weak and strong views of unlabelled ones."""
    rng = np.random.default_rng(seed)
    numbers = range(settings.unlabelled_per_gpu)
    return {
        "sup": [draw_view(rng, settings, classes, number, BOXES) for number in range(settings.labelled_per_gpu)],
        "weak": [draw_view(rng, settings, classes, number) for number in numbers],
        "strong": [draw_view(rng, settings, classes, number) for number in numbers],
    }


def facts_of(settings: Settings, classes: int) -> RunFacts:
    """Return the facts of a run on images that hold a few classes each."""
    names = tuple(f"class {number}" for number in range(classes))
    rng = np.random.default_rng(0)
    labelled = tuple(tuple(map(int, np.unique(rng.integers(0, classes, 4)))) for _ in range(10 * classes))
    return RunFacts(
        task=load_task("coco-split1"),
        variant={},
        profile="default",
        classes=names,
        groups={"maj": names[: classes // 2], "min": names[classes // 2 :]},
        settings=settings,
        iterations=settings.iterations,
        generations=settings.generations,
        labelled_classes=labelled,
        labelled_boxes=(40,) * classes,
        num_unlabelled=100_000,
        seed=0,
    )


def detector_of(method: str, settings: Settings, classes: int, device: torch.device) -> SemiSupervisedDetector:
    """Return a method's detector with random weights; its heads prefer some classes, as trained ones do."""
    facts = facts_of(settings, classes)
    torch.manual_seed(0)
    model = faster_rcnn(settings, classes)
    detector = SemiSupervisedDetector(model, load_method(method).parts(facts), settings, facts.groups, facts.classes)
    head = detector.teacher.roi_head.bbox_head
    with torch.no_grad():
        size = _features(detector, draw_batch(0, settings, classes)).norm(dim=1).mean()
        head.fc_cls.weight.normal_(0, float(LOGITS / size))
        head.fc_reg.weight.normal_(0, float(DELTAS / size))
        detector.student.load_state_dict(detector.teacher.state_dict())
    return detector.to_device(device)


def _features(detector: SemiSupervisedDetector, batch: Batch) -> Tensor:
    """Return what the RoI head's last layers see of the proposals of unlabelled images, shape (R, D)."""
    inputs, samples = detector._prepare(detector.teacher, batch["weak"])
    features = detector.teacher.extract_feat(inputs)
    proposals = [own.bboxes for own in detector.teacher.rpn_head.predict(features, samples, rescale=False)]
    return detector._shared(detector.teacher, features, proposals)[1]


def with_thresholds(settings: Settings, classes: int, device: torch.device) -> Settings:
    """Return the settings with thresholds that leave the random teacher its share of pseudo labels."""
    open_ = replace(settings, initial_threshold=0.0, theta=0.0)
    detector = detector_of("soft-teacher", open_, classes, device)
    batches = [draw_batch(seed, settings, classes) for seed in range(4)]
    found, spread, images = [], [], 0
    for batch in batches:
        teacher = detector.teach(batch["weak"], batch["strong"], Context(FIRST, ITERATIONS))
        found += [own.scores for own in teacher.pseudo]
        spread += [own.uncertainty for own in teacher.pseudo]
        images += len(teacher.pseudo)
    scores = torch.cat(found).sort(descending=True).values
    kept = min(PSEUDO_LABELS * images, len(scores) - 1)
    low, high = float(scores[kept]), float(scores[kept // 2])
    return replace(
        settings, initial_threshold=low, rpn_threshold=high, theta=high, box_threshold=float(torch.cat(spread).median())
    )


def our_step(method: str, settings: Settings, classes: int, device: torch.device) -> tuple[Step, nn.Module]:
    """Return the step of a run's training, and its detector."""
    detector = detector_of(method, settings, classes, device)
    facts = facts_of(settings, classes)
    one_image = SimpleNamespace(image_ids=np.zeros(1, np.int64))
    training = Training(
        detector,
        cast(Any, SimpleNamespace(sources=(one_image, one_image))),  # the batches are ours
        TwoSourceSampler((1, 1), (1, 1), 0),
        settings,
        seed=0,
        file=Path("unused"),
        identity={},
        statistics=PseudoLabelStatistics(facts.groups, facts.classes, lambda: None),
    )
    training.position.stage = len(training.spans) - 1
    training._enter_stage()
    return lambda batch, iteration: cast(Tensor, training.step(batch, iteration)["loss"]), detector


def mmdet_step(settings: Settings, classes: int, device: torch.device) -> tuple[Step, nn.Module]:
    """Return the step of mmdet's SoftTeacher with the same weights, optimiser and teacher's update, and the model."""
    twin = detector_of("soft-teacher", settings, classes, device)
    model = faster_rcnn(settings, classes)
    config = ConfigDict(
        type="SoftTeacher",
        detector=model,
        data_preprocessor=model["data_preprocessor"],
        semi_train_cfg={
            "freeze_teacher": True, "sup_weight": 1.0, "unsup_weight": settings.unsup_weight,
            "pseudo_label_initial_score_thr": settings.initial_threshold, "rpn_pseudo_thr": settings.rpn_threshold,
            "cls_pseudo_thr": settings.theta, "reg_pseudo_thr": settings.box_threshold,
            "jitter_times": settings.jitter_times, "jitter_scale": settings.jitter_scale,
            "min_pseudo_bbox_wh": (1e-2, 1e-2),
        },
        semi_test_cfg={"predict_on": "teacher"},
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope("mmdet"):
        stock = MODELS.build(config)
    stock.student.load_state_dict(twin.student.state_dict())
    stock.teacher.load_state_dict(twin.teacher.state_dict())
    stock.to(device)
    stock.student.train()
    stock.teacher.eval()
    optimiser = make_optimiser(settings, stock.student)
    hook = MeanTeacherHook(momentum=1 - settings.teacher_momentum)
    amp = settings.amp and device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=amp)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]

    def step(batch: Batch, iteration: int) -> Tensor:
        inputs, samples = {}, {}
        for branch, views in (("sup", "sup"), ("unsup_teacher", "weak"), ("unsup_student", "strong")):
            data = {name: [view[name] for view in batch[views]] for name in ("inputs", "data_samples")}
            prepared = stock.data_preprocessor(data, False)
            inputs[branch], samples[branch] = prepared["inputs"], prepared["data_samples"]
        with torch.autocast(device.type, enabled=amp):
            losses = stock.loss(inputs, samples)
        total, _ = stock.parse_losses(losses)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(scaler.scale(total))
        if settings.clip_norm > 0:
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        scaler.step(optimiser)
        scaler.update()
        hook.momentum_update(stock, hook.momentum)
        return cast(Tensor, total.detach())

    return step, stock


def step_of(side: str, settings: Settings, classes: int, device: torch.device) -> tuple[Step, nn.Module]:
    """Return a side's step and its model."""
    make = mmdet_step if side == "mmdet" else lambda *rest: our_step(side, *rest)
    return make(settings, classes, device)


def seeded(step: Step, batch: Batch, iteration: int) -> Tensor:
    """Do a step from the random state that `Training.step` gives it."""
    torch.manual_seed(int(mix(0, 0xC3, iteration, 0)[0] >> 1))
    return step(batch, iteration)


def pairs(sides: tuple[str, str], settings: Settings, classes: int, device: torch.device, number: int) -> Any:
    """Return wall and processor seconds of every step, shape (2, number, 2), and by how much losses differ at most."""
    first, second = (partial(seeded, step_of(side, settings, classes, device)[0]) for side in sides)
    drawn = lru_cache(1)(lambda pair: draw_batch(pair, settings, classes))
    seconds, losses = in_turns(
        (first, second), lambda side, pair: (drawn(pair), FIRST + pair), number + WARM_UP, device
    )
    return seconds[:, WARM_UP:], float(np.abs(losses[:, 0] / losses[:, 1] - 1).max())


def peak_memory(side: str, settings: Settings, classes: int, device: torch.device, number: int) -> dict[str, float]:
    """Return the peak of this process and what it held before a model was built, MiB."""
    before = most_memory()
    step, _ = step_of(side, settings, classes, device)
    for one in range(number):
        seeded(step, draw_batch(one, settings, classes), FIRST + one)
    if device.type == "cuda":
        return {"peak": torch.cuda.max_memory_allocated(device) / 2**20, "before": 0.0}
    return {"peak": most_memory(), "before": before}


def most_memory() -> float:
    """Return the most memory this process has held, MiB. Not ``ru_maxrss``, which begins with the parent's."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def memory_of(side: str, settings: Settings, options: argparse.Namespace, classes: int) -> dict[str, float]:
    """Return `peak_memory` of a process of its own."""
    thresholds = {name: getattr(settings, name) for name in ("initial_threshold", "rpn_threshold", "theta")}
    thresholds["box_threshold"] = settings.box_threshold
    words = [sys.executable, __file__, "--memory", side, "--classes", str(classes), "--preset", options.preset]
    words += ["--device", options.device, "--threads", str(options.threads), "--thresholds", json.dumps(thresholds)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(sides: tuple[str, str], settings: Settings, options: argparse.Namespace, classes: int) -> None:
    """Time and print one comparison."""
    seconds, difference = pairs(sides, settings, classes, torch.device(options.device), options.steps)
    wall, processor = (float(np.median(kind[:, 0] / kind[:, 1])) for kind in seconds)
    medians = 1000 * np.median(seconds[0], axis=0)
    wanted = f" (wanted: <= {WANTED[sides]})" if sides in WANTED else ""
    print(f"{classes} classes, {sides[0]} against {sides[1]}, {options.steps} pairs{wanted}")
    print(f"  a step       {medians[0]:8.1f} ms  {medians[1]:8.1f} ms  median ratio {wall:.3f}", end="")
    print(f", of processor time {processor:.3f}")
    memory = [memory_of(side, settings, options, classes) for side in sides]
    own = [one["peak"] - one["before"] for one in memory]
    print(f"  peak memory  {memory[0]['peak']:7.0f} MiB  {memory[1]['peak']:6.0f} MiB  ", end="")
    print(f"ratio {memory[0]['peak'] / memory[1]['peak']:.3f}, without what the imports take {own[0] / own[1]:.3f}")
    if "mmdet" in sides:
        print(f"  losses differ by {difference:.1e} at most")
        assert difference <= 1e-3, "the two do not do the same work"
    sys.stdout.flush()


def with_teacher() -> list[str]:
    """Return the methods of the catalogue that label unlabelled images, but for Soft Teacher."""
    found = (name for name in list_methods() if load_method(name).images in USES_UNLABELLED)
    return [name for name in found if name != "soft-teacher"]


def main() -> None:
    """Print every comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mini", help="whose detector and images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60, help="pairs")
    parser.add_argument("--classes", type=int, nargs="+", default=[80, 1203])
    parser.add_argument("--methods", nargs="+", help="methods to compare with Soft Teacher, or all")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--thresholds", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device, settings = torch.device(options.device), settings_of(options.preset)
    if options.memory:
        settings = replace(settings, **json.loads(options.thresholds))
        print(json.dumps(peak_memory(options.memory, settings, options.classes[0], device, WARM_UP)))
        return
    compared = list(WANTED)
    if options.methods:
        names = with_teacher() if options.methods == ["all"] else options.methods
        compared = [(name, "soft-teacher") for name in names]
    print(f"preset {options.preset}, {options.device}, {options.threads} thread(s), torch {torch.__version__}")
    for classes in options.classes:
        own = with_thresholds(settings, classes, device)
        for sides in compared:
            compare(sides, own, options, classes)


if __name__ == "__main__":
    main()
