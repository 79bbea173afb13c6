"""The page that lists the bridge's operators: ``python -m onnxprune.finetune.bridge.listing``."""

from __future__ import annotations

import sys
from typing import Any

from onnx import defs

from onnxprune.finetune.bridge import ops
from onnxprune.finetune.bridge.constants import SETTINGS
from onnxprune.finetune.bridge.normalise import OPSET
from onnxprune.finetune.bridge.registry import supported

HEAD = f"""# The torch bridge: operators

`onnxprune finetune` turns a model's own graph into a torch module whose parameters are the model's
own constants, trains it, and puts the values back; names, graph and opset stay. This page lists what
it can run. It is written by `python -m onnxprune.finetune.bridge.listing > docs/bridge.md`; a test
holds it to the code.

Models below opset {OPSET} are converted upwards first (a copy of them; the file is never converted),
local functions are inlined, and an operator that is not in the first list is replaced by the body
that its schema gives, where it gives one. What is left over is refused by name before anything runs.

Trained: every float initializer or Constant of more than one element that is read as a weight, in
branches and loops too; ties stay tied. Integer weights behind DequantizeLinear train as the floats
they stand for, on their own grid, with a straight-through gradient. Not trained: scalars, the
statistics of BatchNormalization, and what sets how an operator works (below). Constants inside local
functions are not trained.

Of the node tests in onnx's wheel (1.23.2), 912 of 912 for typical operators pass and 1,139 of 1,149
for operators on floats; the others are refused by name, but for the two tests of the inverse DFT,
whose expected values are further from the exact transform than the bridge's.
"""


def listing() -> str:
    """The page, in Markdown."""
    own = [name for domain, name in supported() if not domain]
    microsoft = [name for domain, name in supported() if domain]
    settings = sorted({f"{op} input {index}" for op, index in SETTINGS})
    parts = [
        HEAD,
        f"## Default domain ({len(own)})\n\n{_wrapped(own)}\n",
        f"## com.microsoft ({len(microsoft)})\n\n{_wrapped(microsoft)}\n",
        f"## By the body of their schema ({len(_bodies(set(own)))})\n\n{_wrapped(_bodies(set(own)))}\n",
        f"## Inputs that are never trained\n\n{_wrapped(settings)}\n",
    ]
    return "\n".join(parts)


def _bodies(own: set[str]) -> list[str]:
    schemas: Any = defs.get_all_schemas()  # the stubs lack the fields below
    return sorted(
        {
            s.name
            for s in schemas
            if not s.domain
            and not s.deprecated
            and s.name not in own
            and (s.has_function or s.has_context_dependent_function)
        }
    )


def _wrapped(names: list[str], width: int = 100) -> str:
    lines, line = [], ""
    for name in names:
        piece = f"{name}, "
        if len(line) + len(piece) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
    return "\n".join([*lines, line.rstrip()]).rstrip(",")


if __name__ == "__main__":
    ops.register_all()
    sys.stdout.write(listing())
