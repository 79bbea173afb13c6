"""Plans: how many weights each tensor keeps, as a value, as JSON, and as masks."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.errors import RecipeError
from passes.masks import keep_count
from passes.patterns import Unstructured
from passes.saliency import magnitude

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from passes.patterns import Pattern
    from passes.weights import Weight


@dataclass(frozen=True)
class Plan:
    """How many weights each tensor keeps.

    Attributes:
        keep: by weight name.
        elements: how many weights each of these tensors has.
    """

    keep: Mapping[str, int]
    elements: Mapping[str, int]

    @property
    def sparsity(self) -> dict[str, float]:
        """The sparsity of each tensor, by weight name."""
        return {name: 1 - keep / self.elements[name] for name, keep in self.keep.items()}

    def to_json(self) -> str:
        """The form that :func:`load_plan` reads."""
        return json.dumps({"schema_version": 1, "sparsity": self.sparsity}, indent=2) + "\n"


def load_plan(path: Path, weights: Sequence[Weight]) -> Plan:
    """Read ``{"sparsity": {name: 0..1}}``; a name is that of a weight or of a node that reads it.

    Weights that the plan does not name stay dense.

    Raises:
        RecipeError: naming the plan, the entry and what is allowed.
    """
    wanted = _read_sparsities(path)
    by_node = {c.node: weight.name for weight in weights for c in weight.consumers}
    elements = {weight.name: weight.elements for weight in weights}
    keep = dict(elements)
    for name, sparsity in wanted.items():
        target = name if name in elements else by_node.get(name)
        if target is None:
            raise unknown_name(f"plan '{path}'", name, [*elements, *by_node])
        if not isinstance(sparsity, (int, float)) or not 0 <= sparsity <= 1:
            msg = (
                f"plan '{path}': sparsity of '{name}' must lie between 0 and 1, found {sparsity!r}"
            )
            raise RecipeError(msg)
        keep[target] = keep_count(elements[target], sparsity)
    return Plan(keep, elements)


def masks_of(
    weights: Sequence[Weight],
    keep: Mapping[str, int],
    patterns: Mapping[str, Pattern] | None = None,
) -> dict[str, NDArray[np.bool_]]:
    """Masks by magnitude, ``(groups, rows, columns)`` by weight name.

    Args:
        weights: of any layout.
        keep: how many elements each keeps at most; those that it does not name have no mask.
        patterns: fitted shapes of masks by name; unstructured where there is none.
    """
    shapes = patterns or {}
    plain = Unstructured()
    return {
        weight.name: shapes.get(weight.name, plain).mask(
            magnitude(weight.matrices()), keep[weight.name]
        )
        for weight in weights
        if weight.name in keep
    }


def unknown_name(where: str, name: str, known: Sequence[str]) -> RecipeError:
    """The error for a name that the model does not have, with the nearest names it has."""
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see `onnxprune inspect`"
    return RecipeError(f"{where} names '{name}', which is no prunable weight or node; {hint}")


def _read_sparsities(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read plan '{path}': {error.strerror}"
        raise RecipeError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"plan '{path}' is not JSON: {error}"
        raise RecipeError(msg) from error
    sparsity = content.get("sparsity") if isinstance(content, dict) else None
    if not isinstance(sparsity, dict):
        msg = f"plan '{path}' must hold an object 'sparsity' of names and numbers from 0 to 1"
        raise RecipeError(msg)
    return sparsity
