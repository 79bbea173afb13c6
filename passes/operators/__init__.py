"""What operators do with weights: no other part of onnxprune knows operators.

:mod:`~passes.operators.table` lists every input at which an operator reads a weight, with the
meaning of its axes; :mod:`~passes.operators.chains` lists the operators that may stand between a
stored constant and the operator that reads it as its weight.
"""

from passes.operators.answers import NotPrunable
from passes.operators.lookup import layout_of, weight_input
from passes.operators.table import WEIGHT_INPUTS, WeightInput

__all__ = ["NotPrunable", "WEIGHT_INPUTS", "WeightInput", "layout_of", "weight_input"]
