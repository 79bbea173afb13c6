"""What the steps of a recipe are: one frozen description for each, and the order in which they make sense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from onnxprune.data import MAX_CALIBRATION
from onnxprune.recipe_sections import (
    CutFields,
    EncodeSection,
    EstimateSection,
    FinetuneSection,
    PatternName,
    PenaltyForm,
    PenaltySection,
    PhaseSection,
    Section,
    TrainingFields,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxprune.recipe import Recipe

Passes = Annotated[int, Field(ge=1, le=100_000)]


class StepPenalty(PenaltyForm):
    """What pulls weights to zero in one step of training, and how hard; see :class:`PenaltySection`."""

    strength: Annotated[float, Field(ge=0)] = 3e-5


class Training(TrainingFields):
    """What every step that trains has: the dense model is always the teacher (``loss.distill``)."""

    passes: Passes
    penalty: StepPenalty

    def settings(self, phase: Literal["sparsify", "prune", "recover"]) -> FinetuneSection:
        """The same as ``finetune`` takes it, with this step as its only phase."""
        phases = {"sparsify": 0, "prune": 0, "recover": 0} | {phase: self.passes}
        strengths = {
            "sparsify": "strength",
            "prune": "prune_strength",
            "recover": "recover_strength",
        }
        penalty = self.penalty.model_dump()
        strength = penalty.pop("strength")
        chosen = dict.fromkeys(strengths.values(), 0.0) | {strengths[phase]: strength}
        shared = self.model_dump(include={*TrainingFields.model_fields})
        return FinetuneSection.model_validate(
            shared
            | {"phases": PhaseSection(**phases), "penalty": PenaltySection(**penalty, **chosen)}
        )


class CalibrateStep(Section):
    """Draw the samples that later steps calibrate on: so many of the calibration part, by the recipe's seed."""

    step: Literal["calibrate"]
    samples: Annotated[int, Field(ge=1, le=MAX_CALIBRATION)] = 512

    def does(self, _recipe: Recipe) -> str:
        """In a few words."""
        return f"draw up to {self.samples} samples"


class SparsifyStep(Training):
    """Train the whole model under a penalty, so that pruning errs less."""

    step: Literal["sparsify"]
    passes: Passes = 6
    penalty: StepPenalty = StepPenalty()

    def does(self, _recipe: Recipe) -> str:
        """In a few words."""
        return f"{self.passes} passes under {self.penalty.name} {self.penalty.strength:g}"


class GradualSection(Training, CutFields):
    """Prune while training: masks are drawn anew every ``prune_every`` steps on the ``schedule``."""

    passes: Passes = 25
    penalty: StepPenalty = StepPenalty(strength=1e-5)

    def settings(self, phase: Literal["sparsify", "prune", "recover"] = "prune") -> FinetuneSection:
        """As :meth:`Training.settings`, with what says how to cut."""
        cut = {name: getattr(self, name) for name in CutFields.model_fields}
        return super().settings(phase).model_copy(update=cut)


class PruneStep(Section):
    """Set weights to zero: in one shot, or ``gradual`` in training.

    ``sparsity`` is over all weights that are pruned; ``target`` as the recipe's, and the recipe's own where
    neither is given. With none of the three a controller searches the sparsity of each weight under
    the recipe's ``max_drop``, as its ``search`` section says. Method, allocation, damping, pattern and
    reconstruct are those of ``onnxprune prune``.
    """

    step: Literal["prune"]
    sparsity: Annotated[float, Field(ge=0, lt=1)] | None = None
    target: str | None = None
    method: Literal["obs", "admm", "exact", "sparsegpt", "wanda", "magnitude"] = "obs"
    allocation: Literal["uniform", "global", "erk", "lamp", "owl", "loss"] | None = None
    damping: Annotated[float, Field(ge=0, le=10)] = 0.01
    pattern: PatternName = "unstructured"
    reconstruct: Literal["layers", "blocks"] = "layers"
    gradual: GradualSection | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> PruneStep:
        if self.sparsity is not None and self.target is not None:
            msg = "give one of sparsity and target"
            raise ValueError(msg)
        others = {"method", "allocation", "damping", "pattern", "reconstruct"}
        given = sorted(others & self.model_fields_set)
        if self.gradual is not None and given:
            verb = "belongs" if len(given) == 1 else "belong"
            msg = (
                f"{' and '.join(given)} {verb} to pruning in one shot, not to gradual; leave it out"
            )
            raise ValueError(msg)
        return self

    @property
    def calibrates(self) -> bool:
        """Whether it looks at activations; a search always does, and magnitude with its plain allocations never."""
        if self.gradual is not None:
            return False
        looks = self.allocation in {"owl", "loss"} or self.reconstruct == "blocks"
        return self.method != "magnitude" or looks

    def searches(self, recipe: Recipe) -> bool:
        """Whether nothing says how far to prune, so that a controller finds out."""
        asked = self.sparsity is not None or (self.target or recipe.target) is not None
        return not asked and self.gradual is None

    def does(self, recipe: Recipe) -> str:
        """In a few words."""
        if self.searches(recipe):
            how = recipe.search
            return f"{self.method}, sparsities by {how.trials} trials of {how.controller}"
        goal = self.target or recipe.target
        if self.sparsity is not None:
            goal = f"{100 * self.sparsity:g} % sparsity"
        if self.gradual is not None:
            return f"to {goal} in {self.gradual.passes} passes, by {self.gradual.saliency}"
        return f"{self.method} to {goal}"


class RecoverStep(Training):
    """Train the weights that are left; zeros stay. The learning rate falls to zero along a half cosine."""

    step: Literal["recover"]
    passes: Passes = 20
    penalty: StepPenalty = StepPenalty(name="none", strength=0)
    patience: Annotated[int, Field(ge=1)] | None = None

    def does(self, _recipe: Recipe) -> str:
        """In a few words."""
        return f"{self.passes} passes, learning rate {self.optimizer.learning_rate:g} to 0"

    def settings(
        self, phase: Literal["sparsify", "prune", "recover"] = "recover"
    ) -> FinetuneSection:
        """As :meth:`Training.settings`, with when to stop."""
        return super().settings(phase).model_copy(update={"patience": self.patience})


class ShrinkStep(Section):
    """Remove what pruning made dead; images keep a ``multiple`` of so many channels."""

    step: Literal["shrink"]
    multiple: Annotated[int, Field(ge=1, le=1024)] = 4

    def does(self, _recipe: Recipe) -> str:
        """In a few words."""
        return "remove what is dead"


class EncodeStep(EncodeSection):
    """Write the blob for hardware."""

    step: Literal["encode"]

    def does(self, _recipe: Recipe) -> str:
        """In a few words."""
        return f"write the blob, encoding {self.encoding}"


class PackStep(Section):
    """Write the small ONNX file; the fields are those of ``onnxprune pack``."""

    step: Literal["pack"]
    values: str = "keep"
    positions: str = "auto"
    runtime: Literal["onnxruntime", "openvino", "reference"] = "onnxruntime"

    def does(self, _recipe: Recipe) -> str:
        """In a few words."""
        return f"write the packed ONNX file, values {self.values}"


class EstimateStep(EstimateSection):
    """Say what fetching the blob costs."""

    step: Literal["estimate"]

    def does(self, _recipe: Recipe) -> str:
        """In a few words."""
        return f"count fetch cycles from {self.memory}"


class VerifyStep(Section):
    """Compare everything that was written with what was meant, bit for bit."""

    step: Literal["verify"]

    def does(self, _recipe: Recipe) -> str:
        """In a few words."""
        return "compare bit for bit"


Step = Annotated[
    CalibrateStep
    | SparsifyStep
    | PruneStep
    | RecoverStep
    | ShrinkStep
    | EncodeStep
    | PackStep
    | EstimateStep
    | VerifyStep,
    Field(discriminator="step"),
]

INHERITED = {
    "prune": ("method", "damping", "pattern", "reconstruct"),
    "encode": tuple(EncodeSection.model_fields),
    "estimate": tuple(EstimateSection.model_fields),
}
"""What steps take from the recipe's section of their name where they leave it open."""

CHANGES = (SparsifyStep, PruneStep, RecoverStep, ShrinkStep)
"""Steps that make another model."""

TRAINS = (SparsifyStep, RecoverStep)


def with_inherited(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe with those of its steps filled in from its sections.

    Args:
        fields: as they were given: plain values or sections.
    """
    steps = fields.get("steps")
    if not isinstance(steps, list | tuple):
        return dict(fields)
    filled = []
    for step in steps:
        given = _given(step)
        name = given.get("step")
        known = INHERITED.get(name, ()) if isinstance(name, str) and "gradual" not in given else ()
        section = _given(fields.get(str(name))) if known else {}
        filled.append({key: section[key] for key in known if key in section} | given or step)
    return dict(fields) | {"steps": filled}


def as_written(step: Step) -> dict[str, Any]:
    """The fields of a step as plain values, its name first, without those that do not apply."""
    beside_gradual = ("step", "sparsity", "target", "gradual")
    gradual = isinstance(step, PruneStep) and step.gradual is not None
    fields = step.model_dump(mode="json", include=set(beside_gradual) if gradual else None)
    fields = {name: value for name, value in fields.items() if value is not None}
    return {"step": fields.pop("step")} | fields


def _given(value: Any) -> dict[str, Any]:
    """The fields that someone gave, of a mapping or of a section."""
    if isinstance(value, Section):
        given = {name: getattr(value, name) for name in value.model_fields_set}
        return given | ({"step": value.step} if hasattr(value, "step") else {})
    return dict(value) if isinstance(value, dict) else {}


def training_of(step: Step) -> Training | None:
    """How a step trains; None where it does not."""
    if isinstance(step, PruneStep):
        return step.gradual
    return step if isinstance(step, TRAINS) else None


def trains(step: Step) -> bool:
    """Whether a step trains, which needs torch."""
    return training_of(step) is not None


def check_order(steps: Sequence[Step], target: str | None) -> None:
    """See that every step finds what it needs.

    Args:
        steps: of a recipe.
        target: the recipe's own.

    Raises:
        ValueError: naming the step, what it lacks and where to put it.
    """
    calibrated = encoded = False
    for number, step in enumerate(steps):
        where = f"steps.{number}"
        if isinstance(step, PruneStep):
            if step.calibrates and not calibrated:
                msg = f"{where}: prune by {step.method} needs samples to calibrate on; put a calibrate step before it"
                raise ValueError(msg)
            if step.gradual is not None and step.sparsity is None and not (step.target or target):
                msg = f"{where}: prune in training needs to know how far: give it a sparsity or a target such as 50x"
                raise ValueError(msg)
        if isinstance(step, EstimateStep) and not encoded:
            msg = (
                f"{where}: estimate needs the blob of the model as it is then; put an encode step before it, "
                "after the last step that changes the model"
            )
            raise ValueError(msg)
        calibrated = calibrated or isinstance(step, CalibrateStep)
        encoded = isinstance(step, EncodeStep) or (encoded and not isinstance(step, CHANGES))
