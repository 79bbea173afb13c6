"""Calibration samples in the form in which ``passes`` want them: feeds, and a runner of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.data import MAX_CALIBRATION
from onnxprune.errors import DataError, OnnxPruneError
from onnxprune.evaluate import prepare
from onnxprune.model_io import model_bytes
from onnxprune.runtime import Session
from passes.calibration import calibrate
from passes.outputs import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import onnx_ir as ir

    from onnxprune.data import Dataset, Feeds
    from passes.layers import Layer
    from passes.moments import Moments

POSITIONS = 8192
"""Drawn for each layer where levels or error curves are computed."""

PROBE_SAMPLES = 128
BATCH = 64


@dataclass(frozen=True, eq=False)
class Calibration:
    """A dense model and what it is run on.

    Attributes:
        model: dense.
        feeds: calibration samples, up to :data:`BATCH` in each.
        threads: of onnxruntime.
        seed: of the positions that are drawn.
    """

    model: ir.Model
    feeds: tuple[Feeds, ...]
    threads: int | None
    seed: int

    def runner(self, model: bytes, feeds: Iterable[Feeds]) -> Iterator[Feeds]:
        """Outputs by name of a model for each feed, one after the other."""
        session = Session(model, threads=self.threads)
        for feed in feeds:
            yield dict(zip(session.outputs, session.run(feed), strict=True))

    def moments(self, layers: Sequence[Layer]) -> dict[str, Moments]:
        """Moments of the layers' inputs in the dense model, by weight name.

        Raises:
            DataError: naming the weight, when an activation holds NaN or infinity.
        """
        try:
            return calibrate(
                self.model, layers, self.feeds, self.runner, positions=POSITIONS, seed=self.seed
            )
        except ValueError as error:
            raise as_data_error(error) from error

    def output_error(self) -> OutputError:
        """How far outputs move on the first samples when constants change."""
        first = next(iter(self.feeds[0].values()))
        size = max(1, len(first) if first.ndim else 1)
        return OutputError(self.model, self.feeds[: max(1, PROBE_SAMPLES // size)], self.runner)


def calibration(
    model: ir.Model, samples: Dataset, *, threads: int | None = None, seed: int = 0
) -> Calibration:
    """Up to :data:`~onnxprune.data.MAX_CALIBRATION` of the samples, drawn by seed, as feeds of the model."""
    samples = samples.limited(MAX_CALIBRATION, seed)
    session = Session(model_bytes(model), threads=threads)
    return Calibration(model, prepare(session, samples, BATCH).feeds, threads, seed)


def as_data_error(error: ValueError) -> OnnxPruneError:
    """What ``passes`` say about the data becomes our own error; ours stay as they are."""
    return error if isinstance(error, OnnxPruneError) else DataError(str(error))
