"""The courses that calibration data take through a model.

Weights may stand in the branch of an If or in a model-local function, or be cut where only the data
say. Batches that take the same branches share a course: a copy of the model in which that course
is all there is (:mod:`passes.flatten`), so that each of its weights is a layer like any other. What
branches are taken is found by running the model, once for each depth at which conditionals with weights
are nested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.calibration import calibrate
from passes.flatten import BRANCHES, flatten
from passes.layers import one_row, watch
from passes.operators.chains import CHAIN
from passes.operators.constants import stored_tensor
from passes.outputs import OutputError
from passes.prepare import View, bodies_of
from passes.schedule import folded_nodes
from passes.sequential import Reconstruction, prune_sequentially
from passes.stream import Stretch
from passes.values import tap_name
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

    from passes.flatten import Flat
    from passes.layers import Layer
    from passes.moments import Moments
    from passes.sequential import Options
    from passes.stream import Feeds, Runner
    from passes.weights import Weight

NOT_TAKEN = "no batch of the data reaches a node that reads it"


@dataclass(frozen=True, eq=False)
class Course:
    """A course through the model.

    Attributes:
        model: the model, or a copy in which this course is all there is. Constants have the names that
            they have in the model.
        batches: the feeds that take it.
        weights: those that are read on it and are not pruned on a course with more batches.
        layers: those of them that can be watched.
    """

    model: ir.Model
    batches: Sequence[Feeds]
    weights: tuple[Weight, ...]
    layers: tuple[Layer, ...]


class Courses:
    """All courses of a model, and what is known of its weights on them.

    Args:
        model: dense; it is not changed.
        weights: what is to be pruned.
        batches: calibration feeds for the model's inputs.
        runner: runs models.
        tile_of: see :func:`passes.layers.watch`.

    Attributes:
        layers: by weight name.
        reasons: by weight name, for all other weights.
    """

    def __init__(
        self,
        model: ir.Model,
        weights: Sequence[Weight],
        batches: Sequence[Feeds],
        runner: Runner,
        tile_of: Callable[[str], int | None] = one_row,
    ) -> None:
        self._runner = runner
        self._all: list[Course] = []
        self.layers: dict[str, Layer] = {}
        self.reasons = {weight.name: NOT_TAKEN for weight in weights}
        left = {weight.name for weight in weights}
        for copy, taking in _split(model, weights, batches, runner):
            found = weights if copy is model else _on(copy, left)
            layers, reasons = watch(copy.graph, found, tile_of)
            left -= {layer.name for layer in layers}
            self.reasons |= reasons
            self.layers |= {layer.name: layer for layer in layers}
            self._all.append(Course(copy, taking, tuple(found), tuple(layers)))
        self.reasons = {name: reason for name, reason in self.reasons.items() if name in left}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._all)

    def __iter__(self) -> Iterator[Course]:
        """The courses, that of most batches first."""
        return iter(self._all)

    def moments(self, positions: int, seed: int) -> dict[str, Moments]:
        """Those of :func:`passes.calibration.calibrate`, by weight name."""
        known: dict[str, Moments] = {}
        for course in self._all:
            known |= calibrate(
                course.model,
                course.layers,
                course.batches,
                self._runner,
                positions=positions,
                seed=seed,
            )
        return known

    def sensitivity(
        self, samples: int, numbers: int
    ) -> Callable[[Mapping[str, NDArray[Any]]], float | None]:
        """What tells how far outputs move when constants change: :class:`passes.outputs.OutputError`.

        It gives None for constants that no course reads.

        Args:
            samples: about how many of each course to run, at most.
            numbers: that these hold in all, at most about; one batch is always run.
        """
        errors = [
            OutputError(course.model, _first(course.batches, samples, numbers), self._runner)
            for course in self._all
        ]

        def sensitivity_of(constants: Mapping[str, NDArray[Any]]) -> float | None:
            for error in errors:
                if error.replaces(constants):
                    return error(constants)
            return None

        return sensitivity_of

    def prune(
        self,
        keep: Mapping[str, int],
        options: Options,
        given: Mapping[str, NDArray[Any]],
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> Reconstruction:
        """:func:`passes.sequential.prune_sequentially` on each course, after what others have pruned."""
        made = Reconstruction(dict(given), {}, {})
        total = sum(layer.name in keep for layer in self.layers.values())
        for course in self._all:
            names = {layer.name for layer in course.layers}
            result = prune_sequentially(
                course.model,
                [weight for weight in course.weights if weight.name in names],
                keep,
                course.batches,
                self._runner,
                options,
                given=made.constants,
                progress=_after(len(made.methods), total, progress),
            )
            made = Reconstruction(
                made.constants | result.constants,
                made.masks | result.masks,
                made.methods | result.methods,
            )
        return made


def _after(
    before: int, total: int, progress: Callable[[int, int], None]
) -> Callable[[int, int], None]:
    return lambda done, _: progress(before + done, total)


def _on(copy: ir.Model, left: AbstractSet[str]) -> tuple[Weight, ...]:
    """The weights of a copy that are still to be pruned."""
    found = collect_weights(copy, embeddings=True).weights
    return tuple(weight for weight in found if weight.name in left)


def _split(
    model: ir.Model, weights: Sequence[Weight], batches: Sequence[Feeds], runner: Runner
) -> list[tuple[ir.Model, list[Feeds]]]:
    """A model for each course and the batches that take it, most batches first."""
    names = {weight.name for weight in weights}
    direct = all(
        consumer.reader is not None and consumer.reader.graph is model.graph
        for weight in weights
        for consumer in weight.consumers
    )
    if direct and not _open_cuts(model.graph):
        return [(model, list(batches))]
    constants = {constant.value: constant.name for constant in View(model).constants()}
    pending = [(flatten(model, names=constants).model, list(batches))]
    done: list[tuple[ir.Model, list[Feeds]]] = []
    while pending:
        copy, taking = pending.pop()
        found = _resolved(copy, names, taking, runner)
        if found is None:
            done.append((copy, taking))
        else:
            pending += found
    return sorted(done, key=lambda course: -len(course[1]))


def _resolved(
    copy: ir.Model, names: AbstractSet[str], batches: Sequence[Feeds], runner: Runner
) -> list[tuple[ir.Model, list[Feeds]]] | None:
    """A copy for each set of branches that batches take; None when nothing is left to decide."""
    decisions = _deciding(copy, names)
    cuts = _open_cuts(copy.graph)
    if not decisions and not cuts:
        return None
    conditions = [node.inputs[0] for node in decisions if node.inputs[0] is not None]
    seen = _watched(copy, [*conditions, *cuts], batches, runner)
    groups: dict[tuple[bool, ...], list[int]] = {}
    for number, values in enumerate(seen):
        key = tuple(bool(np.all(array)) for array in values[: len(conditions)])
        groups.setdefault(key, []).append(number)
    result = []
    for key, numbers in groups.items():
        taken = dict(zip(decisions, key, strict=True))
        known = {
            cut: array
            for place, cut in enumerate(cuts, start=len(conditions))
            for array in [seen[numbers[0]][place]]
            if all(np.array_equal(seen[number][place], array) for number in numbers)
        }
        if not taken and len(known) < len(cuts):
            return None  # what the data do not agree on stays open
        flat: Flat = flatten(copy, taken, known=known)
        result.append((flat.model, [batches[number] for number in numbers]))
    return result


def _deciding(copy: ir.Model, names: AbstractSet[str]) -> list[ir.Node]:
    """The If nodes of the main graph in whose branches weights are read."""
    outer: dict[ir.Graph, ir.Node] = {}
    for root in copy.graph:
        pending = [body for _, body in bodies_of(root)]
        while pending:
            body = pending.pop()
            outer[body] = root
            pending += [inner for child in body for _, inner in bodies_of(child)]
    found: dict[ir.Node, None] = {}
    node: ir.Node | None
    for weight in collect_weights(copy, embeddings=True).weights:
        for consumer in weight.consumers:
            graph = consumer.reader.graph if consumer.reader is not None else None
            if weight.name not in names or not isinstance(graph, ir.Graph):
                continue
            node = outer.get(graph)
            if node is not None and node.op_type == "If" and BRANCHES[True] in node.attributes:
                found[node] = None
    return list(found)


def _open_cuts(graph: ir.Graph) -> list[ir.Value]:
    """Values that say how constants are cut or reshaped and are computed while the model runs."""
    folded = folded_nodes(graph)

    def constant(value: ir.Value | None) -> bool:
        return value is None or stored_tensor(value) is not None or value.producer() in folded

    found: dict[ir.Value, None] = {}
    reached: set[ir.Value] = set()
    for node in graph:
        if (node.domain, node.op_type) not in CHAIN or not node.inputs:
            continue
        first, *others = node.inputs
        if first is None or not (constant(first) or first in reached):
            continue
        reached |= set(node.outputs)
        found |= dict.fromkeys(v for v in others if v is not None and not constant(v))
    return list(found)


def _watched(
    copy: ir.Model, values: Sequence[ir.Value], batches: Sequence[Feeds], runner: Runner
) -> list[list[NDArray[Any]]]:
    """For each batch the arrays of some values."""
    names = [tap_name(value) for value in values]
    stretch = Stretch(copy, list(copy.graph), set(names))
    fixed = {
        tap_name(value): tensor.numpy()
        for value in values
        if (tensor := stored_tensor(value)) is not None
    }
    return [
        [(fixed | batch | made)[name] for name in names]
        for batch, made in zip(batches, stretch.each(runner, batches, {}), strict=True)
    ]


def _first(feeds: Sequence[Feeds], samples: int, numbers: int) -> list[Feeds]:
    """The first feeds that hold about so many samples, and not more numbers than allowed."""
    first = next(iter(feeds[0].values()))
    size = max(1, len(first) if first.ndim else 1)
    held = max(1, sum(array.size for array in feeds[0].values()))
    return list(feeds[: max(1, min(samples // size, numbers // held))])
