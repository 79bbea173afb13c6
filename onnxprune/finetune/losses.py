"""Losses: against labels, against the dense model, or the user's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from onnxprune.errors import DataError, RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.recipe_sections import LossSection

Outputs = Sequence["Tensor"]

LabelLoss = Callable[["Outputs", "Tensor"], "Tensor"]
"""From all outputs and the labels of a batch to a scalar."""


def label_loss(name: str, labels: Tensor | None) -> LabelLoss | None:
    """The loss against labels by name; None where there are no labels.

    Raises:
        RecipeError: for an unknown name, or a function that cannot be loaded.
        DataError: when a loss needs labels that the data lack or do not fit.
    """
    if labels is None:
        if name != "auto":
            msg = f"loss '{name}' needs labels; add an array 'labels' to the data, or use 'auto' to learn from the dense model"
            raise DataError(msg)
        return None
    if name == "auto":
        name = "mse" if labels.is_floating_point() else "cross_entropy"
    if name == "cross_entropy":
        if labels.is_floating_point():
            msg = "cross_entropy needs class numbers as labels, found floats; use 'mse'"
            raise DataError(msg)
        return cross_entropy
    if name == "mse":
        return mse
    if ":" not in name:
        msg = f"unknown loss '{name}'; known are auto, cross_entropy, mse, or module:function"
        raise RecipeError(msg)
    return load_function(name, "loss")


def cross_entropy(outputs: Outputs, labels: Tensor) -> Tensor:
    """Cross-entropy of the first output: class scores ``(N, classes, ...)``, labels ``(N, ...)``."""
    scores = outputs[0]
    if scores.ndim < 2 or labels.shape != (scores.shape[0], *scores.shape[2:]):
        scores = scores.reshape(scores.shape[0], -1)
        if labels.numel() != scores.shape[0]:
            msg = f"cross_entropy needs one class number a sample, found labels of shape {tuple(labels.shape)}"
            raise DataError(msg)
        labels = labels.reshape(-1)
    return functional.cross_entropy(scores.float(), labels.long())


def mse(outputs: Outputs, labels: Tensor) -> Tensor:
    """Mean squared error of the first output."""
    value = outputs[0]
    return functional.mse_loss(value.float(), labels.reshape(value.shape).float())


def distance(outputs: Outputs, dense: Outputs, temperature: float) -> Tensor:
    """How far outputs are from the dense model's.

    A first output that looks like class scores, ``(N, classes)``, is compared by the KL divergence
    of its softened distribution times the temperature squared (Hinton, Vinyals and Dean 2015,
    "Distilling the knowledge in a neural network"). Every other float output adds its squared error
    over the mean square of the dense model's.
    """
    total = outputs[0].new_zeros((), dtype=torch.float32)
    for index, (output, target) in enumerate(zip(outputs, dense, strict=True)):
        if not target.is_floating_point():
            continue
        ours, theirs = output.float(), target.float()
        if index == 0 and ours.ndim == 2 and ours.shape[1] > 1:
            total = total + temperature**2 * functional.kl_div(
                torch.log_softmax(ours / temperature, 1),
                torch.log_softmax(theirs / temperature, 1),
                log_target=True,
                reduction="batchmean",
            )
        else:
            power = theirs.square().mean().clamp_min(1e-12)
            total = total + functional.mse_loss(ours, theirs) / power
    return total


def total_loss(
    section: LossSection,
    against_labels: LabelLoss | None,
    outputs: Outputs,
    labels: Tensor | None,
    dense: Outputs | None,
) -> Tensor:
    """The weighted sum of the loss against labels and the distance to the dense model."""
    if against_labels is None or labels is None:
        assert dense is not None
        return distance(outputs, dense, section.temperature)
    own = against_labels(outputs, labels)
    if dense is None:
        return own
    far = distance(outputs, dense, section.temperature)
    return (1 - section.distill) * own + section.distill * far


def load_function(target: str, what: str) -> Any:
    """A user's function by ``module:function``.

    Raises:
        RecipeError: when it cannot be loaded.
    """
    module_name, _, function_name = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        msg = f"cannot load {what} '{target}': {error}; give module:function"
        raise RecipeError(msg) from error
