"""What a run would do, and about how long each step would take, from a few probes of this machine.

Probed are one batch of the dense model in onnxruntime, one matrix product, and, where a step trains, a few
batches forward and backward in torch. The work of a step is then counted from the recipe and the shapes of the
weights. Training gets faster when whole channels empty, and a search stops trials early, so those are
upper ends.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.data import MAX_CALIBRATION
from onnxprune.evaluate import run_dataset
from onnxprune.pipeline.inputs import fingerprint
from onnxprune.pipeline.records import StepFolder
from onnxprune.pipeline.run import step_name
from onnxprune.pipeline.state import Context, State
from onnxprune.pipeline.steps import (
    CHANGES,
    CalibrateStep,
    EncodeStep,
    EstimateStep,
    PackStep,
    PruneStep,
    RecoverStep,
    ShrinkStep,
    SparsifyStep,
    VerifyStep,
)
from onnxprune.progress import silent
from onnxprune.report import ExpectedStep
from onnxprune.runtime import Session
from passes.admm import STEPS
from passes.curves import LEVELS
from passes.curves import STEPS as CURVE_STEPS
from passes.methods import SECOND_ORDER

if TYPE_CHECKING:
    from onnxprune.pipeline.steps import Step, Training
    from onnxprune.recipe import Recipe
    from onnxprune.run_folder import RunFolder
    from onnxprune.study import Study

PROBE_SAMPLES = 64
PROBE_SIDE = 768

SECONDS_A_WEIGHT = {EncodeStep: 1e-7, PackStep: 1.2e-7, EstimateStep: 1.2e-7, ShrinkStep: 5e-8}
"""Measured on one Zen 4 core with 4 million weights at 90 % sparsity; of the order elsewhere."""

EIGEN = 10
"""An eigendecomposition costs about so many C^3 at the speed of a product's 2 C^3."""

RUNS = 3
"""One-shot pruning runs the stretches between weights about so often in all: watched, probed, pruned."""

DEFAULT_STEPS: tuple[Step, ...] = (
    CalibrateStep(step="calibrate"),
    PruneStep(step="prune"),
    EncodeStep(step="encode"),
    EstimateStep(step="estimate"),
    PackStep(step="pack"),
    VerifyStep(step="verify"),
)
"""What ``compress`` does where the recipe lists no steps."""


@dataclass(frozen=True)
class _Probe:
    """Speeds of this machine on one model; each is measured when first asked for."""

    study: Study
    recipe: Recipe

    @cached_property
    def sample(self) -> float:
        """Seconds that the dense model takes for one sample."""
        data = self.study.search.take(np.arange(min(PROBE_SAMPLES, len(self.study.search))))
        session = Session(self.study.path, threads=self.study.threads)
        run_dataset(session, data)
        start = time.perf_counter()
        run_dataset(session, data)
        return (time.perf_counter() - start) / len(data)

    @cached_property
    def multiply(self) -> float:
        """Seconds of one multiply-add in a large product of float32."""
        square = np.random.default_rng(0).standard_normal((PROBE_SIDE, PROBE_SIDE), np.float32)
        square @ square
        start = time.perf_counter()
        square @ square
        return (time.perf_counter() - start) / PROBE_SIDE**3

    def training(self, section: Training) -> float:
        """Seconds of one pass over the calibration part, forward and backward."""
        from onnxprune.finetune.run import seconds_a_pass

        settings = section.settings("sparsify")
        study = self.study
        return seconds_a_pass(study.path, study.calibration, settings, threads=study.threads)

    def one_shot(self, step: PruneStep, samples: int) -> float:
        """Seconds of pruning in one shot."""
        run = RUNS * samples * self.sample
        if step.method not in SECOND_ORDER:
            return run
        work = 0.0
        curves = step.allocation in {None, "loss"}
        for weight in self.study.collection.weights:
            groups, rows, columns = weight.matrices().shape
            iterations = STEPS + (len(LEVELS) * CURVE_STEPS if curves else 0)
            work += groups * columns**2 * (EIGEN * columns + 2 * rows * iterations)
        return run + work * self.multiply


def forecast(study: Study, folder: RunFolder, recipe: Recipe) -> tuple[ExpectedStep, ...]:
    """The steps of a run and what each is expected to take; nothing is written.

    Args:
        study: the dense model and its data.
        folder: of the run, which need not exist; steps that are done there already take no time.
        recipe: with its steps, or with none for those that ``compress`` does by itself.
    """
    steps = recipe.steps or DEFAULT_STEPS
    if not recipe.steps:  # there, a target says when a search has found enough
        recipe = recipe.model_copy(update={"target": None})
    probe = _Probe(study, recipe)
    context, state = Context(study, recipe, silent), State(study.path)
    expected, known = [], True
    if recipe.searched:
        makes = [_seconds(s, MAX_CALIBRATION, probe) for s in steps if isinstance(s, CHANGES)]
        how = recipe.search
        does = f"{how.trials} trials of {how.controller} over {len(recipe.searched)} fields"
        expected.append(ExpectedStep("tune", does, round(how.trials * sum(makes), 4), done=False))
    samples = 0
    for number, step in enumerate(steps):
        name = step_name(number, step)
        if isinstance(step, CalibrateStep):
            samples = min(step.samples, len(study.calibration))
        place, record = StepFolder(folder.steps / name), None
        if known and steps is recipe.steps:
            record = place.finished(fingerprint(step, number, state, context))
        if record is not None:
            state = state.after(step, place.path, record)
        else:
            known = False  # what follows would be made from something that is not there yet
        seconds = 0.0 if record is not None else _seconds(step, samples, probe)
        seconds *= math.prod(len(values) for values in recipe.settled(number).values())
        expected.append(ExpectedStep(name, step.does(recipe), round(seconds, 4), record is not None))  # fmt: skip
    return tuple(expected)


def _seconds(step: Step, samples: int, probe: _Probe) -> float:
    study, recipe = probe.study, probe.recipe
    if isinstance(step, SparsifyStep | RecoverStep):
        return step.passes * probe.training(step)
    if isinstance(step, PruneStep):
        if step.gradual is not None:
            return step.gradual.passes * probe.training(step.gradual)
        once = probe.one_shot(step, samples)
        if step.searches(recipe):
            trials = recipe.search.trials * len(study.search) * probe.sample
            return trials + (1 + recipe.search.finish) * once
        return once
    if isinstance(step, VerifyStep):
        return 2 * len(study.held_out) * probe.sample
    elements = sum(weight.elements for weight in study.collection.weights)
    return SECONDS_A_WEIGHT.get(type(step), 0.0) * elements
