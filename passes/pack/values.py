"""Forms that values may be stored in: as they are, or smaller and with a loss that is reported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.layout import Layout

KEEP, FLOAT16, INT8, CODEBOOK = "keep", "float16", "int8", "codebook"

ROUNDS = 100
"""Most iterations of k-means; it is exact long before on what it is used for."""


@dataclass(frozen=True)
class ValueForm:
    """How values are stored.

    Attributes:
        kind: ``keep``, ``float16``, ``int8`` (with a scale for each output channel) or ``codebook``.
        size: entries of the codebook, 2 to 256.
    """

    kind: str
    size: int = 0

    @property
    def lossy(self) -> bool:
        """Whether weights may change."""
        return self.kind != KEEP


@dataclass(frozen=True, eq=False)
class Prepared:
    """An array in its form.

    Attributes:
        array: what the chain rebuilds before the last step: the array itself, float16, or int8.
        scale: what int8 is multiplied with; broadcasts against the array.
        codebook: all values that the stored elements take, ascending; what is stored then is which.
    """

    array: NDArray[Any]
    scale: NDArray[Any] | None = None
    codebook: NDArray[Any] | None = None


def parse_values(text: str) -> ValueForm:
    """A form by its name: ``keep``, ``float16``, ``int8``, ``codebook2`` to ``codebook256``.

    Raises:
        ValueError: with the names that there are.
    """
    if text in {KEEP, FLOAT16, INT8}:
        return ValueForm(text)
    found = re.fullmatch(r"codebook(\d{1,3})", text)
    if found and 2 <= int(found[1]) <= 256:
        return ValueForm(CODEBOOK, int(found[1]))
    msg = f"values cannot be stored as '{text}'; allowed are keep, float16, int8, codebook2 to codebook256"
    raise ValueError(msg)


def prepare(
    array: NDArray[Any],
    form: ValueForm,
    layout: Layout | None,
    saliency: NDArray[Any] | None = None,
) -> Prepared:
    """An array of floats in a form; as it is where the form does not suit it.

    Args:
        array: float, any shape.
        form: to bring it to.
        layout: tells its output channels; without it int8 keeps the array.
        saliency: how much each element matters, in the array's shape, for the codebook.
    """
    if form.kind == FLOAT16 and array.itemsize > 2:
        with np.errstate(over="ignore"):  # what overflows is kept as it is
            small = array.astype(np.float16)
        if np.isfinite(small).all():
            return Prepared(small)
    if form.kind == INT8 and layout is not None and np.isfinite(array.astype(np.float64)).all():
        return _as_int8(array, layout)
    if form.kind == CODEBOOK and np.isfinite(array.astype(np.float64)).all():
        return _as_codebook(array, form.size, saliency)
    return Prepared(array)


def _as_int8(array: NDArray[Any], layout: Layout) -> Prepared:
    """Symmetric, with the largest magnitude of each output channel at 127."""
    matrices = layout.matrices(array).astype(np.float64)
    largest = np.abs(matrices).max(axis=2, keepdims=True)
    scales = np.where(largest > 0, largest / 127, 1).astype(array.dtype)
    full = np.broadcast_to(scales, matrices.shape)
    codes = np.clip(np.rint(matrices / full.astype(np.float64)), -127, 127).astype(np.int8)
    scale = layout.array(full)
    for axis in range(scale.ndim):
        first = np.take(scale, [0], axis=axis)
        if (scale == first).all():
            scale = first
    return Prepared(np.ascontiguousarray(layout.array(codes)), scale=np.ascontiguousarray(scale))


def _as_codebook(array: NDArray[Any], size: int, saliency: NDArray[Any] | None) -> Prepared:
    flat = array.ravel()
    kept = flat != 0
    values = flat[kept].astype(np.float64)
    if not values.size:
        return Prepared(array)
    weights = np.ones(values.size) if saliency is None else saliency.ravel()[kept]
    centres = np.unique(kmeans(values, weights.astype(np.float64), size).astype(array.dtype))
    result = np.zeros_like(flat)
    result[kept] = centres[nearest(centres, values)]
    return Prepared(result.reshape(array.shape), codebook=centres)


def nearest(centres: NDArray[Any], values: NDArray[Any]) -> NDArray[np.int64]:
    """For each value the number of the closest centre; centres ascend."""
    wide = centres.astype(np.float64)
    middles = (wide[1:] + wide[:-1]) / 2
    return np.searchsorted(middles, values.astype(np.float64)).astype(np.int64)


def kmeans(
    values: NDArray[np.float64], weights: NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    """Centres ``(<= size,)`` that minimise the weighted squared distance (Lloyd's iteration).

    Started from evenly spaced centres, which keeps large weights (Han et al. 2016, "Deep
    Compression"), and from quantiles; the better one is taken. Both are deterministic.
    """
    points = np.unique(values).astype(np.float64)
    inverse = np.searchsorted(points, values)
    mass = np.bincount(inverse, weights=np.maximum(weights, 1e-12)).astype(np.float64)
    if points.size <= size:
        return points
    shares = (np.arange(size) + 0.5) / size
    starts: tuple[NDArray[Any], ...] = (
        np.linspace(points[0], points[-1], size),
        np.interp(shares, (np.cumsum(mass) - mass / 2) / mass.sum(), points),
    )
    found = [_lloyd(points, mass, np.unique(start)) for start in starts]
    return min(found, key=lambda centres: _distortion(points, mass, centres))


def _lloyd(
    points: NDArray[np.float64], mass: NDArray[Any], centres: NDArray[Any]
) -> NDArray[np.float64]:
    masses = np.concatenate([[0], np.cumsum(mass)])
    moments = np.concatenate([[0], np.cumsum(mass * points)])
    for _ in range(ROUNDS):
        ends = np.searchsorted(points, (centres[1:] + centres[:-1]) / 2, side="right")
        bounds = np.concatenate([[0], ends, [points.size]])
        inside = np.diff(masses[bounds])
        moved: NDArray[np.float64] = np.diff(moments[bounds])[inside > 0] / inside[inside > 0]
        if moved.size == centres.size and np.allclose(moved, centres, rtol=1e-7, atol=0):
            return moved
        centres = np.unique(moved)
    return centres


def _distortion(
    points: NDArray[np.float64], mass: NDArray[Any], centres: NDArray[np.float64]
) -> float:
    return float((mass * (points - centres[nearest(centres, points)]) ** 2).sum())
