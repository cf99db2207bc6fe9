"""What a run is put together from: its images, its detector with the method's parts, the order of its batches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cissod_bench import distributed
from cissod_bench.annotations.file_names import ImageFolder
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.annotations.same_files import Listed, check_files, keyed
from cissod_bench.backbones.pretrained import Backbone, backbone_of
from cissod_bench.backbones.timm_weights import TimmWeights
from cissod_bench.backbones.whole_detectors import begin_from, read_detector
from cissod_bench.contract.method import USES_UNLABELLED, RunFacts, parts_of
from cissod_bench.contract.parts import Parts
from cissod_bench.contract.stages import spans, unlabelled_from
from cissod_bench.detector.model_config import IGNORE_IOF, faster_rcnn
from cissod_bench.detector.precision import check_mixed
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.errors import DataFault
from cissod_bench.files.hashing import mix
from cissod_bench.loading.image_folders import check_folders
from cissod_bench.loading.loaders import ViewsDataset
from cissod_bench.loading.sampler import TwoSourceSampler
from cissod_bench.loading.shared_columns import key_of, read_ahead, shared_source
from cissod_bench.loading.sources import Source, source_of
from cissod_bench.records import run_folder as runs
from cissod_bench.running.agreement import check_alike
from cissod_bench.running.plan import Plan, images_per_rank, variant_fields
from cissod_bench.running.turned import put_right
from cissod_bench.splitting.data_files import HIDDEN, LABELLED, UNLABELLED
from cissod_bench.training.judging import hidden_source, read_hidden
from cissod_bench.training.loop import Training
from cissod_bench.training.pseudo_quality import PseudoLabelStatistics


def pick_device() -> torch.device:
    """Return this rank's GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index = distributed.local_rank() % torch.cuda.device_count()  # Slurm may show each process its own GPU alone
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def sources(plan: Plan, scored: Source | None = None, *, at_hand: bool = True) -> tuple[Source, Source]:
    """Return the two sources of a run: D_l with its boxes and D_u without any.

    For the oracle all images are in the first, with the hidden boxes; for the supervised row the second is not drawn.
    Where images of D_u may be promoted, they stand behind those of D_l in the first, too, without boxes.

    Args:
        plan: of the run.
        scored: the scored images, None where none are.
        at_hand: the images are there; False asks nothing of them.

    Raises:
        DataFault: an image file stands in two records of D_l, D_u and the scored images.
    """
    if plan.method.images in USES_UNLABELLED and distributed.rank() == 0:
        path, sha256 = plan.split / HIDDEN, plan.manifest.files.get(HIDDEN, "")
        read_ahead(path, partial(hidden_source, path, plan.classes, plan.naming, sha256, plan.task.swapped))
    labelled, unlabelled = _parts(plan, at_hand)
    if at_hand:
        check_apart(plan, labelled, unlabelled, scored)
    unlabelled = unlabelled.without_boxes()
    if plan.method.images == "oracle":
        labelled = labelled + _part(plan, HIDDEN, at_hand)
    if plan.method.images == "promoted":
        labelled = labelled + unlabelled
    return labelled, unlabelled


def _parts(plan: Plan, at_hand: bool = True) -> tuple[Source, Source]:
    """Return D_l and D_u, D_u with what boxes its file has.

    Ranks begin with different files: the columns of large ones are written once, by whoever comes first, so the ranks
    of a machine share the reading.
    """
    both = [LABELLED, UNLABELLED]
    turn = distributed.rank() % 2
    read = {name: _part(plan, name, at_hand) for name in both[turn:] + both[:turn]}
    return read[LABELLED], read[UNLABELLED]


def _part(plan: Plan, name: str, at_hand: bool = True) -> Source:
    path, swapped, folders = plan.split / name, plan.task.swapped, tuple(plan.images.values())

    def read() -> Source:
        with read_annotations(path, naming=plan.naming, doubtful=swapped, records=False) as file:
            return source_of(file, plan.images, "train", at_hand=False)

    key = key_of("part", plan.manifest.files[name], plan.naming, sorted(swapped), tuple(plan.images))
    readings = tuple(plan.readings.values())
    source = replace(shared_source(path, key, read), folders=folders, readings=readings, within=plan.data_root)
    if not at_hand:
        return source
    check_folders(path, folders, source.parents)
    return put_right(source, swapped)


def check_apart(plan: Plan, labelled: Source, unlabelled: Source, scored: Source | None) -> None:
    """Refuse an image file that stands in two records: a split may have been drawn before anybody looked.

    Args:
        plan: of the run.
        labelled: the images of D_l.
        unlabelled: those of D_u.
        scored: those that are scored, None where none are.

    Raises:
        DataFault: there is one.
    """
    lists = [_listed(labelled, plan.split / LABELLED), _listed(unlabelled, plan.split / UNLABELLED)]
    if scored is not None:
        lists.append(_listed(scored, plan.val, scored=True))
    check_files(lists, plan.task.named)


def _listed(source: Source, path: Path, *, scored: bool = False) -> Listed:
    return keyed(
        Listed(
            path=path,
            ids=source.image_ids,
            places=source.image_folder,
            folders=source.folders,
            names=source.names_of,
            scored=scored,
        )
    )


def scored_images(plan: Plan) -> tuple[Source, tuple[int, ...]]:
    """Return the images that are scored and the category id of every channel.

    Raises:
        DataFault: the file has other classes than the split, or a folder of its images is missing.
    """
    # The split's files hold the right sizes; those of this one are as they were published.
    folder = ImageFolder(plan.images["val"], plan.task.images["val"])
    with read_annotations(plan.val, naming=plan.naming, swapped=plan.task.swapped, folder=folder) as file:
        if file.classes != plan.classes:
            raise DataFault(f"{plan.val} has other classes than the split.", remedy="draw the split again")
        source = source_of(file, plan.images, "val", plan.readings, within=plan.data_root)
        return put_right(source, plan.task.swapped), file.category_ids


def prepare(plan: Plan, device: torch.device, scored: Source | None = None, **hooks: Any) -> Training:
    """Return a run's training, at its first iteration.

    Args:
        plan: the run.
        device: of the detector.
        scored: the scored images, which are none of D_l and D_u.
        hooks: ``log``, ``report``, ``stop`` and ``warn`` of `Training`.

    Raises:
        DataFault: D_l or D_u has no image, an image file stands in two records, or the pretrained backbone's file does
            not fit.
        EnvironmentFault: that file can neither be read nor fetched.
        UsageFault: the device does not compute in the number format of the settings.
    """
    check_mixed(plan.settings.amp, device)
    both = labelled, unlabelled = sources(plan, scored)
    _check_images(plan, both)
    # Weights are drawn on every rank from the run's seed, so they are equal everywhere.
    torch.manual_seed(int(mix(plan.seed, 0x11)[0] >> 1))
    backbone = backbone_of(plan.settings)
    known = {} if backbone is None else {"pretrained backbone": f"{backbone.kind} {backbone.sha256}"}
    check_alike(known)
    parts = parts_of(plan.method, facts_of(plan, labelled, unlabelled))
    detector = _detector(plan, parts, backbone, ignores=has_ignore_regions(plan, labelled))
    return Training(
        detector.to_device(device),
        ViewsDataset(both, (("sup",), ("weak", "strong")), plan.settings),
        _sampler(plan, detector.parts, both),
        plan.settings,
        seed=plan.seed,
        file=plan.folder / runs.CHECKPOINT,
        identity={**plan.identity(), **known, "number of processes": str(distributed.world_size())},
        statistics=statistics(plan),
        **hooks,
    )


def _check_images(plan: Plan, both: tuple[Source, Source]) -> None:
    """Refuse a source without images that the method wants images of."""
    for source, name, wanted in zip(both, ("labelled", "unlabelled"), images_per_rank(plan), strict=True):
        if wanted and not len(source):
            raise DataFault(f"{plan.split / name}.json has no image to train on.", remedy="draw the split again")


def facts_of(plan: Plan, labelled: Source, unlabelled: Source) -> RunFacts:
    """Return what the method may know of the run.

    Args:
        plan: of the run.
        labelled: as `sources` gives it.
        unlabelled: likewise.
    """
    promotable = len(unlabelled) if plan.method.images == "promoted" else 0
    return RunFacts(
        task=plan.task,
        variant=variant_fields(plan.method, plan.variant),
        profile=plan.profile,
        classes=plan.classes,
        groups={name: tuple(members) for name, members in plan.groups.items()},
        settings=plan.settings,
        iterations=plan.settings.iterations,
        generations=plan.settings.generations,
        labelled_classes=labelled.classes_of_images()[: len(labelled) - promotable],
        labelled_boxes=labelled.boxes_of_classes(len(plan.classes)),
        num_unlabelled=len(unlabelled),
        seed=plan.seed,
    )


def has_ignore_regions(plan: Plan, labelled: Source) -> bool:
    """Return whether what lies in ignore regions is no background in training.

    Args:
        plan: of the run.
        labelled: as `sources` gives it.
    """
    if plan.manifest.dm_minority == "ignore" or plan.method.images == "promoted":
        return True
    return plan.task.crowd_ignored and bool(labelled.ignored.any())


def _detector(
    plan: Plan, parts: Parts, backbone: Backbone | TimmWeights | None, *, ignores: bool
) -> SemiSupervisedDetector:
    """Return student, teacher and parts with their initial weights."""
    kind = None if backbone is None else backbone.kind
    model = faster_rcnn(plan.settings, len(plan.classes), ignore_iof=IGNORE_IOF if ignores else -1.0, kind=kind)
    detector = SemiSupervisedDetector(model, parts, plan.settings, plan.groups, plan.classes)
    detector.backbone_record = {} if backbone is None else backbone.record()
    if plan.settings.pretrained_part == "detector":
        whole = read_detector(plan.settings.pretrained)
        known = begin_from(detector.student, whole, plan.classes)
        detector.copy_student()
        detector.backbone_record["classes"] = list(known)
    return detector


def _sampler(plan: Plan, parts: Parts, both: tuple[Source, Source]) -> TwoSourceSampler:
    """Return which images an iteration holds on this rank."""
    settings = plan.settings
    aspects = [source.landscape() for source in both] if settings.group_by_aspect else None
    stages = spans(parts.stages(), settings.iterations)
    begin = unlabelled_from(stages, settings.unsup_start, settings.iterations)
    labelled, unlabelled = both
    sizes, rank, world = (len(labelled), len(unlabelled)), distributed.rank(), distributed.world_size()
    return TwoSourceSampler(sizes, images_per_rank(plan), plan.seed, rank, world, aspects, (0, begin))


def statistics(plan: Plan) -> PseudoLabelStatistics | None:
    """Return what judges the run's pseudo labels, None where there are none."""
    if plan.method.images not in USES_UNLABELLED:
        return None
    path, sha256 = plan.split / HIDDEN, plan.manifest.files.get(HIDDEN, "")
    hidden = partial(read_hidden, path, plan.classes, plan.naming, sha256, plan.task.swapped)
    return PseudoLabelStatistics(plan.groups, plan.classes, hidden)
