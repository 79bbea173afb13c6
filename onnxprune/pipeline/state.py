"""What steps work on: what is the same for all of them, and what each leaves to the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from onnxprune.model_io import load_model
from onnxprune.pipeline.records import BLOB, MODEL, NAMES, PACKED, Facts
from onnxprune.pipeline.steps import PackStep, PruneStep, Step
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnxprune.pipeline.records import Digests, Record
    from onnxprune.progress import Progress
    from onnxprune.recipe import Recipe
    from onnxprune.study import Study
    from passes.weights import Weight

ESTIMATED = ("fetch", "dense_cycles", "memory", "hardware", "verification")
"""Facts that hold until one of the files that they are about changes."""


@dataclass(frozen=True, eq=False)
class Context:
    """What is the same for all steps.

    Attributes:
        study: the dense model, its data in three parts, and its scores.
        recipe: all settings.
        progress: told of each step.
    """

    study: Study
    recipe: Recipe
    progress: Progress

    @cached_property
    def dense(self) -> str:
        """Fingerprint of the dense model."""
        return self.study.model_fingerprint()

    @property
    def names(self) -> tuple[str, ...]:
        """The weights that the recipe selects."""
        return tuple(weight.name for weight in self.study.collection.weights)

    def weights(self, model: Path) -> list[Weight]:
        """The same weights as a model has them now."""
        names = set(self.names)
        return [w for w in collect_weights(load_model(model)).weights if w.name in names]


@dataclass(frozen=True)
class State:
    """What the steps so far have left.

    Attributes:
        model: the model as it is now.
        rows: of the calibration part that steps calibrate on.
        files: the latest blob, packed model and memory of the optimizer, as far as they still belong
            to the model.
        digests: of the model and of these files, by kind; none of the dense original.
        facts: what was said of these files: encoding, fetches, comparisons.
        pruned: whether zeros of the model are there to stay.
        lossy: whether the packed model holds other values than the model.
    """

    model: Path
    rows: tuple[int, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    digests: Mapping[str, Digests] = field(default_factory=dict)
    pruned: bool = False
    lossy: bool = False
    facts: Facts = field(default_factory=Facts)

    def after(self, step: Step, folder: Path, record: Record) -> State:
        """The state that a step leaves, from its record."""
        made = {kind: folder / NAMES[kind] for kind in record.outputs}
        model = made.pop(MODEL, None)
        before = self if model is None else State(model)  # files and facts were of the model before
        return State(
            model=before.model,
            rows=self.rows if record.facts.rows is None else record.facts.rows,
            files={**before.files, **made},
            digests={**before.digests, **record.outputs},
            pruned=self.pruned or isinstance(step, PruneStep),
            lossy=step.values != "keep" if isinstance(step, PackStep) else self.lossy,
            facts=before._facts_with(made, record.facts),  # noqa: SLF001 - another of our own
        )

    def _facts_with(self, made: Mapping[str, Path], new: Facts) -> Facts:
        """What is still true of the files, and what a step adds."""
        facts = self.facts
        if BLOB in made:
            facts = Facts(encoding=new.encoding, packing=facts.packing)
        if PACKED in made:
            facts = replace(facts, packing=new.packing, verification=None)
        known = {name: value for name in ESTIMATED if (value := getattr(new, name)) is not None}
        return replace(facts, **known)


@dataclass(frozen=True)
class Made:
    """What a step made: which kinds of files it wrote into its folder, and what must be known of it."""

    outputs: tuple[str, ...] = ()
    facts: Facts = field(default_factory=Facts)
