"""Losses that stand in the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from torch import Tensor


@operator("NegativeLogLikelihoodLoss")
def _nll(node: Node, log_prob: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    ignored = node.get("ignore_index")
    return functional.nll_loss(
        log_prob,
        labels.long(),
        weight,
        ignore_index=-(2**31) if ignored is None else ignored,
        reduction=node.get("reduction", "mean"),
    )


@operator("SoftmaxCrossEntropyLoss")
def _cross_entropy(
    node: Node, scores: Tensor, labels: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    log_prob = torch.log_softmax(scores, 1)
    return _nll(node, log_prob, labels, weight), log_prob
