"""Searched fields of an encode step: settled by counting what each choice costs, for no choice changes the model."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from onnxprune import hardware
from onnxprune.errors import RecipeError
from onnxprune.pipeline.inputs import hardware_recipe
from onnxprune.pipeline.steps import EncodeStep, EstimateStep
from onnxprune.target_hardware import target_hardware

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxprune.recipe import Recipe
    from onnxprune.recipe_sections import Unit
    from onnxprune.target_hardware import TargetHardware
    from passes.weights import Weight


def cheapest_storage(
    recipe: Recipe, number: int, weights: Sequence[Weight]
) -> tuple[TargetHardware, Mapping[str, Any]]:
    """How an encode step is to store weights: of the values that its fields may take, those of least cost.

    The cost is fetch cycles where an estimate step follows, or ``search.unit`` says so, else bytes of the blob;
    among equals the values that are listed first win.

    Args:
        recipe: with its steps.
        number: of the encode step.
        weights: of the model as it is then.

    Returns:
        The hardware with the storage chosen, and the chosen values by the step's own names.

    Raises:
        RecipeError: when none of the choices can hold the weights.
    """
    choices = recipe.settled(number)
    if not choices:
        return target_hardware(hardware_recipe(recipe, number)), {}
    unit = unit_of(recipe, number)
    best: tuple[float, TargetHardware, dict[str, Any]] | None = None
    why = ""
    for values in itertools.product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        tried = recipe.with_values({f"steps.{number}.{name}": v for name, v in chosen.items()})
        target = target_hardware(hardware_recipe(tried, number))
        try:
            cost = sum(_cost(weight, target, unit) for weight in weights)
        except RecipeError as error:  # this encoding cannot hold a weight; another may
            cost, why = math.inf, str(error)
        if cost < (math.inf if best is None else best[0]):
            best = cost, target, chosen
    if best is None:
        msg = f"steps.{number}: none of the choices can store the weights: {why}"
        raise RecipeError(msg)
    return best[1], best[2]


def unit_of(recipe: Recipe, number: int) -> Unit:
    """What an encode step is to save: cycles or bytes."""
    own = itertools.takewhile(lambda s: not isinstance(s, EncodeStep), recipe.steps[number + 1 :])
    follows = any(isinstance(step, EstimateStep) for step in own)
    return "cycles" if follows or recipe.search.unit == "cycles" else "blob_bytes"


def _cost(weight: Weight, target: TargetHardware, unit: Unit) -> float:
    if unit == "cycles":
        return hardware.fetch_cycles(weight, weight.array(), target.storage, target.space.only)
    return hardware.encoded_bytes(weight, weight.array(), target.storage)
