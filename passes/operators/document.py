"""The table of operators as a page: ``python -m passes.operators.document > docs/operators.md``."""

from __future__ import annotations

import sys
from itertools import groupby

from passes.operators.chains import CHAIN
from passes.operators.lookup import input_name
from passes.operators.table import LEFT_ALONE, WEIGHT_INPUTS

HEAD = """# Operators

Made from `passes/operators/table.py` by `python -m passes.operators.document > docs/operators.md`;
a test checks that they agree.

## Weights that are found and pruned

Each weight is seen as matrices of groups (G), rows (R, outputs) and columns (C, the reduction). The
last column says what each stored axis is. For a quantised operator, zero means its zero point, and
scales stay as they are.

| operator | input | stored axes |
| --- | --- | --- |
"""

DTYPES = """
float32, float16, bfloat16, float64, and int8 and uint8 where they are quantised weights (behind
DequantizeLinear or in an operator that reads them) are pruned in place. Other dtypes are left, and
the report says so. Inputs marked *embedding* are pruned only when embeddings are asked for.

## Ways from a stored constant to its operator

A constant may be an initializer (of the model or of a body of If, Loop or Scan; also one that is a
graph input), a Constant node with any value attribute, or a ConstantOfShape node of known shape,
which becomes a Constant node when some of it is pruned. A `sparse_initializer` or `sparse_value` is
made dense when the file is read. From there it is followed through model-local functions and
through these operators, in any order:

"""

READERS = """
One value that several nodes read is one weight and is pruned once. Each reader has its own view of
the stored array; masks live in the view that most readers share, of equally common ones the first.
All views hold the same elements, so unstructured masks mean the same in each; `Weight.agreed` tells
patterns whether rows and columns do too. A value that any node reads in another way than as a
weight is left as it is; nodes that read only its shape do not count.

## Operators whose weights are left, and why

"""


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    keyed = sorted(WEIGHT_INPUTS, key=lambda w: (w.domain, w.op_type, w.index))
    for (domain, op_type), inputs in groupby(keyed, key=lambda w: (w.domain, w.op_type)):
        for weight in inputs:
            operator = f"{op_type} ({domain})" if domain else op_type
            name = input_name(domain, op_type, weight.index)
            place = f"{weight.index} ({name})" if name else f"{weight.index}"
            mark = "; *embedding*" if weight.opt_in else ""
            lines.append(f"| {operator} | {place} | {weight.stored}{mark} |\n")
    through = sorted({op_type for _, op_type in CHAIN} | {"Concat"})
    lines += [DTYPES, ", ".join(through), ".\n", READERS]
    lines += [f"- {op_type}: {reason}.\n" for (_, op_type), reason in sorted(LEFT_ALONE.items())]
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
