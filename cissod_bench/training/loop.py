"""The training: generations of sample -> train -> pseudo-label -> sample, in stages, resumable at any iteration.

Why not mmengine's Runner: an iteration here is three lines, and everything the Runner adds around it (its sampler and
resume protocol, checkpoints that are not atomic, launchers and wrappers that assume GPUs, configs formatted in every
rank: B11 and B17-B19) would have to be replaced for exact resume. Models, losses, assigners and transforms are mmdet's.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cissod_bench import distributed
from cissod_bench.contract.parts import Context, Detections
from cissod_bench.contract.settings import Settings, learning_rate
from cissod_bench.contract.stages import spans
from cissod_bench.detector.precision import mixed
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.files.hashing import mix
from cissod_bench.loading.loaders import ViewsDataset, training_batches
from cissod_bench.loading.sampler import TwoSourceSampler
from cissod_bench.loading.unread import UnreadImages, most_replaced
from cissod_bench.records.pseudo_label_lines import PseudoLabelLine
from cissod_bench.signals import stopped
from cissod_bench.training import checkpoint, guards
from cissod_bench.training.evaluating import is_due, next_due, untouched
from cissod_bench.training.interval import Interval
from cissod_bench.training.later import Later
from cissod_bench.training.optimisers import make_optimiser
from cissod_bench.training.predict import detections
from cissod_bench.training.pseudo_quality import PseudoLabelStatistics

Log = Callable[[dict[str, float]], None]
TakeLine = Callable[[PseudoLabelLine], None]


def generation_start(generation: int, iterations: int, generations: int) -> int:
    """Return the first iteration of a generation: t T / N_t, rounded down."""
    return generation * iterations // generations


class Training:
    """One run's training.

    Args:
        detector: student, teacher and parts, on its device.
        dataset: views of the two sources.
        sampler: which images an iteration holds on this rank.
        settings: the run's.
        seed: of the training.
        file: the checkpoint.
        identity: what the run is; a checkpoint of another is refused.
        log: takes a line of numbers every ``log_every`` iterations: means over them and over ranks.
        stop: tells whether the run was asked to stop (SIGTERM, Ctrl-C).
        statistics: judges the pseudo labels of every generation; nothing comes back from it.
        report: takes its lines at the end of every generation, on rank 0.
        warn: takes lines on images that cannot be read, on rank 0.

    Attributes:
        evaluate: called on all ranks with (iterations done, generation) after each ``eval_every`` iterations and after
            the last, when a checkpoint was written; also for a checkpoint that is continued. Nothing comes back.
    """

    def __init__(
        self,
        detector: SemiSupervisedDetector,
        dataset: ViewsDataset,
        sampler: TwoSourceSampler,
        settings: Settings,
        *,
        seed: int,
        file: Path,
        identity: dict[str, str],
        log: Log = lambda line: None,
        stop: Callable[[], bool] = lambda: False,
        statistics: PseudoLabelStatistics | None = None,
        report: TakeLine = lambda line: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.detector, self.dataset, self.sampler, self.settings = detector, dataset, sampler, settings
        self.seed, self.file, self.identity, self.log, self.stop = seed, file, identity, log, stop
        self.statistics, self.report = statistics, report
        self.evaluate: Callable[[int, int], None] | None = None
        detector.observer = statistics.observe if statistics is not None else None
        self.device = next(detector.student.parameters()).device
        self.spans = spans(detector.parts.stages(), settings.iterations)
        self.position = checkpoint.Position()
        self.interval = Interval()
        self._verdict: guards.Verdict | None = None
        self._asked: Later | None = None
        drawn = [source.image_ids for source, number in zip(dataset.sources, sampler.per_gpu, strict=True) if number]
        self.unread = UnreadImages(most_replaced(len(np.unique(np.concatenate(drawn)))), warn)
        dataset.following = sampler.following
        self._enter_stage()

    def _enter_stage(self) -> None:
        """Make the running stage's optimiser, scaler and wrapper of the detector."""
        settings, detector = self.settings, self.detector
        context = self._context(self.position.iteration)
        for model in (detector.student, detector.teacher):
            detector.parts.enter_stage(model, context)
        detector.teacher.requires_grad_(False)
        self.optimiser = make_optimiser(settings, detector.student)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.amp == "fp16")
        self.model: nn.Module = detector
        if distributed.is_distributed():
            # Wrapped here because a CPU module takes no device_ids (B18).
            devices = [self.device.index] if self.device.type == "cuda" else None
            # The parts' buffers are kept equal by their own sums; torch is renaming the switch that leaves them alone.
            known = inspect.signature(DistributedDataParallel.__init__).parameters
            switch = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            unsynchronised: dict[str, Any] = {switch: False}
            # Gradients lie in the buffers that are sent: the same numbers, and one copy of them less.
            self.model = DistributedDataParallel(
                detector, device_ids=devices, gradient_as_bucket_view=True, **unsynchronised
            )

    def leave_out(self, image_ids: Sequence[int]) -> None:
        """Never draw some unlabelled images, which cannot be read; before iteration 0, the same on all ranks."""
        self.unread.left_out = tuple(image_ids)

    def resume(self) -> bool:
        """Continue from the checkpoint if there is one; tell whether there was."""
        # Rank 0's file counts for all: others may see another disk, or look while rank 0 writes its first.
        state = checkpoint.read_shared(self.file, self.identity)
        if state is None:
            return False
        self.position = checkpoint.position_of(state)
        self._verdict = self._asked = None
        self._enter_stage()
        checkpoint.load(state, self.detector, self.optimiser, self.scaler)
        if self.statistics is not None:
            self.statistics.load(self.position.statistics)
        if self.position.logged:  # checkpoints of earlier versions have none
            self.interval.load(self.position.logged[distributed.rank()])
        self.unread.load(self.position.unread)
        self._set_copies()
        return True

    def run(self, until: int | None = None) -> None:
        """Train to the end, or until an iteration (as if the run had been stopped there).

        Raises:
            Interrupted: the run was asked to stop; its checkpoint is written.
        """
        total = self.settings.iterations if until is None else until
        self._evaluate()  # the one at which the run was stopped
        while self.position.iteration < total:
            self._begin()
            place = self.position
            ends = (self._generation_end(), self.spans[place.stage].end, next_due(place.iteration, self.settings))
            self._train_to(min(*ends, total))
            self._evaluate()

    def _evaluate(self) -> None:
        """Let teacher and student be scored, if it is time; the training goes on as if they had not been."""
        place = self.position
        if self.evaluate is not None and is_due(place.iteration, self.settings) and not place.streak.length:
            with untouched(self.detector):
                self.evaluate(place.iteration, place.generation)

    def _generation_end(self) -> int:
        """Return the first iteration after the running generation."""
        return generation_start(self.position.generation + 1, self.settings.iterations, self.settings.generations)

    def _begin(self) -> None:
        """Begin the stage and the generation whose first iteration comes next, if one does."""
        place = self.position
        begins_stage = place.iteration == self.spans[place.stage].end
        begins_generation = place.iteration == self._generation_end()
        if begins_stage:
            self._begin_stage(place.stage + 1)
        if begins_generation:
            place.generation += 1
        if begins_stage or begins_generation or place.iteration == 0:
            self._choose_images()

    def _begin_stage(self, stage: int) -> None:
        """Begin a stage after the first: the method may change the student's weights; the teacher becomes its copy."""
        self.position.stage = stage
        torch.manual_seed(int(mix(self.seed, 0x57, stage)[0] >> 1))  # the same on all ranks
        self.detector.parts.begin_stage(self.detector.student, self._context(self.position.iteration))
        self.detector.copy_student()
        self._enter_stage()

    def _choose_images(self) -> None:
        """Ask the method which images are drawn how often from now on; rank 0's answer counts."""
        self.position.start = self.position.iteration
        context = replace(self._context(self.position.iteration), detect_unlabelled=self._detect_unlabelled)
        parts = self.detector.parts
        self.position.promoted = distributed.broadcast(parts.promoted(context))
        copies = parts.copies(context)
        self.position.copies = distributed.broadcast(dict(copies) if copies else {})
        self._set_copies()

    def _detect_unlabelled(self) -> Iterator[Detections]:
        """Yield the teacher's detections on this rank's share of D_u."""
        source = self.dataset.sources[1]
        left_out = set(source.rows_of(self.unread.left_out).tolist())
        share = range(distributed.rank(), len(source), distributed.world_size())
        rows = [row for row in share if row not in left_out] if left_out else share
        for found in detections(self.detector, source, self.settings, rows, on_unread=self.unread.passed_over):
            yield found
            if self.stop():  # this rank's own word: the others are asked, too, or end when it does
                where = f"before iteration {self.position.iteration + 1} of {self.settings.iterations}"
                raise stopped(f"Stopped {where}, in a pass over D_u; the last checkpoint counts.")

    def _set_copies(self) -> None:
        """Tell sampler and data set which images the running generation draws, and how often."""
        place = self.position
        # A stage that begins within a generation goes on with another order of the images.
        number = place.generation + self.settings.generations * place.stage
        if self.unread.left_out:
            rows = enumerate(source.rows_of(self.unread.left_out) for source in self.dataset.sources)
            self.sampler.leave_out(dict(rows))
        self.sampler.set_copies(place.copies, generation=number, start=place.start)
        self.dataset.promote(place.promoted)

    def _train_to(self, end: int) -> None:
        """Train without a new choice of images up to an iteration; log, judge, save and stop where it is time.

        Raises:
            Interrupted: a rank was asked to stop.
        """
        begin, settings = self.position.iteration, self.settings
        clock = time.perf_counter()
        with closing(self._batches(begin, end)) as batches:
            # Closed whatever happens: an error that is still being told at exit would keep workers waiting for ever.
            for iteration, batch in zip(range(begin, end), batches, strict=True):
                line = self.step(batch, iteration)
                self.interval.add(line)
                self.position.iteration = done = iteration + 1
                if done % settings.log_every == 0 or done == settings.iterations:
                    self.unread.share()
                    numbers = self.interval.close(self.device)
                    now = time.perf_counter()
                    numbers["seconds"], clock = now - clock, now
                    self.log({"iteration": done, "generation": self.position.generation, **numbers})
                if done == self._generation_end():
                    self._end_generation()
                if done % settings.checkpoint_every == 0 or done == end:
                    self._settle()
                # Not while no step is made: the checkpoint shall be from before whatever went wrong.
                wanted = done % settings.checkpoint_every == 0 or is_due(done, settings)
                if (wanted and not self.position.streak.length) or done == settings.iterations:
                    self._keep_older()
                    self.save()
                if self._asked_to_stop():
                    self.save()
                    words = f"Stopped after iteration {done} of {settings.iterations}; a checkpoint is written."
                    raise stopped(words, on_all_ranks=True)

    def _batches(self, begin: int, end: int) -> Generator[dict[str, list[Any]], None, None]:
        workers, on_unread = self.settings.workers, self.unread.replaced
        return training_batches(self.dataset, self.sampler, begin, end, workers, on_unread)

    def _end_generation(self) -> None:
        """Report how good the pseudo labels were; before the checkpoint, so that none is reported twice."""
        if self.statistics is None:
            return
        place = self.position
        numbers: dict[str, Any] = {"pool": None, "pool_coverage": None}
        for source, name in enumerate(("labelled", "unlabelled")):
            times = place.copies.get(source)
            numbers[f"copies_{name}"] = None if times is None else float(times.mean())
            numbers[f"copies_{name}_max"] = None if times is None else int(times.max())
        numbers |= self.detector.parts.statistics(self._context(place.iteration - 1))
        for line in self.statistics.end_generation(place.generation + 1, place.iteration, numbers):
            self.report(line)

    def _asked_to_stop(self) -> bool:
        """Tell whether a rank was asked to stop; all ranks agree, so that none waits for another.

        With several ranks it is the answer of the iteration before, which no GPU has to be waited for.
        """
        if not distributed.is_distributed():
            return self.stop()
        asked = torch.full((), float(self.stop()), device=self.device)
        before, self._asked = self._asked, Later(distributed.all_reduce_sum(asked))
        return before is not None and before.read()[0] > 0

    def step(self, batch: dict[str, Any], iteration: int) -> dict[str, Tensor | float]:
        """Do one iteration: losses, optimiser step, the method's state, the teacher; return what the log says of it.

        Args:
            batch: "sup", "weak" and "strong" -> this rank's views, as `SemiSupervisedDetector.forward` takes them.
            iteration: counted from 0.
        """
        # Samplers and jitter draw from torch's generator; seeding it every iteration makes resume exact without
        # saving its state on every rank.
        torch.manual_seed(int(mix(self.seed, 0xC3, iteration, distributed.rank())[0] >> 1))
        span = self.spans[self.position.stage]
        rate = learning_rate(iteration, self.settings, distributed.world_size(), (span.begin, span.end))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        context = self._context(iteration)
        with mixed(self.settings.amp, self.device):
            losses = self.model(batch, context)
        total = torch.stack([value.float().sum() for value in losses.values()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(total))
        self._optimise(losses, total.detach(), iteration, rate)
        self.detector.parts.after_iteration(context)
        self.detector.update_teacher(iteration - span.begin)
        values = {name: value.detach().float().sum() for name, value in losses.items()}
        return {"lr": rate, "loss": total.detach(), **values, **context.logs}

    def _optimise(self, losses: dict[str, Tensor], total: Tensor, iteration: int, rate: float) -> None:
        """Step unless a rank's loss or the gradient, which all ranks share, is not finite."""
        broken = distributed.all_reduce_sum((~torch.isfinite(total)).float()) > 0
        skipped = guards.guarded_step(self.optimiser, self.scaler, self.settings.clip_norm, broken)
        self._settle()  # of the iteration before: on a GPU it is done by now
        self._verdict = guards.Verdict(iteration, rate, skipped, broken, losses)

    def _settle(self) -> None:
        """Read whether the iteration before made its step, and count it if it did not.

        Collective if too many in a row made none, which ends the training.

        Raises:
            BenchError: that is so.
        """
        verdict, self._verdict = self._verdict, None
        if verdict is None or verdict.tell(self.position.streak):
            return
        self.position.skipped += 1
        guards.check(self.position.streak, self.settings.iterations, verdict.rate)

    def _keep_older(self) -> None:
        """Let the checkpoint that is about to be replaced stay, if it is one of the newest that shall (rank 0)."""
        if distributed.rank() == 0 and self.settings.keep_checkpoints:
            checkpoint.keep_older(self.file, self.position.iteration, self.settings.keep_checkpoints)

    def save(self) -> None:
        """Write the checkpoint (rank 0)."""
        self._settle()
        guards.check_state(self.detector, self.optimiser)
        extra: dict[str, Any] = {}
        self.detector.parts.before_save_checkpoint(extra)
        if self.statistics is not None:
            self.position.statistics = self.statistics.state()
        self.position.unread = self.unread.state()
        self.position.logged = distributed.gather_objects(self.interval.state())
        if distributed.rank() == 0:
            checkpoint.save(self.file, self.position, self.detector, self.optimiser, self.scaler, self.identity, extra)
        distributed.barrier()

    def _context(self, iteration: int) -> Context:
        """Return the context of an iteration in the running generation and stage, in no branch yet."""
        place, settings = self.position, self.settings
        student = self.detector.student
        return Context(
            iteration, settings.iterations, place.generation, settings.generations, place.stage, student=student
        )
