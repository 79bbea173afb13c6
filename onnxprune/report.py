"""The report: what was gained and what was not, the same for every command.

Field names are the keys of ``report.json``. A part that does not apply is None here and absent
there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping  # noqa: TC003 - pydantic reads annotations when a report is read back
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import onnxprune
from hwmodel.estimate import TensorCycles  # noqa: TC001 - as above
from onnxprune.model_io import file_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ModelReport:
    """The file that came in: path as given, its SHA-256, size (with external data), opset by domain."""

    path: str
    sha256: str
    bytes: int
    opset: Mapping[str, int] | None = None


@dataclass(frozen=True)
class WeightReport:
    """One weight. Sizes in bytes, fetches in memory clock cycles."""

    name: str
    nodes: tuple[str, ...]
    op_types: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    elements: int
    nonzeros: int
    sparsity: float
    dense_bytes: int
    entropy_bound_bytes: int
    pattern: str | None = None
    encoding: str | None = None
    encoded_bytes: int | None = None
    dense_fetch_cycles: int | None = None
    fetch_cycles: int | None = None
    dense_fetch: TensorCycles | None = None
    fetch: TensorCycles | None = None


@dataclass(frozen=True)
class PointWeight:
    """What a weight costs at one point of the design space."""

    name: str
    encoding: str
    encoded_bytes: int
    fetch: TensorCycles


@dataclass(frozen=True)
class DesignPoint:
    """All weights from one memory, in one encoding, through one decoder; sums over them.

    Cycles are clocks of the memory; ``share_of_peak`` is of the fetches alone.
    """

    memory: str
    encoding: str
    encoded_bytes: int
    fetched_bytes: int
    memory_cycles: int
    decode_cycles: int
    compute_cycles: int
    stall_cycles: int
    fetch_cycles: int
    dense_fetch_cycles: int
    share_of_peak: float
    microseconds: float
    weights: tuple[PointWeight, ...]
    decoder_lanes: int | None = None
    energy_pJ: float | None = None  # noqa: N815 - the unit


@dataclass(frozen=True)
class SkippedReport:
    """A constant that was left as it is, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Totals:
    """Sums over the weights; file sizes where a file was written."""

    elements: int
    nonzeros: int
    sparsity: float
    compression_rate: float
    dense_bytes: int
    entropy_bound_bytes: int
    model_bytes: int | None = None
    blob_bytes: int | None = None
    packed_bytes: int | None = None
    dense_fetch_cycles: int | None = None
    fetch_cycles: int | None = None


@dataclass(frozen=True)
class Quality:
    """Scores on the held-out part; ``drop`` is baseline minus compressed, with its 95 % interval."""

    metric: str
    samples: int
    baseline: float
    compressed: float
    drop: float
    drop_ci95: tuple[float, float]
    max_drop: float
    target_met: bool


@dataclass(frozen=True)
class Verification:
    """How the deliverables compare in the runtime, and which checks were made."""

    runtime: str
    samples: int
    max_abs_error: float
    max_rel_error: float
    passed: bool
    checks: Mapping[str, bool] | None = None


@dataclass(frozen=True)
class ShrinkReport:
    """What exact shrinking removed: each pair is before and after.

    ``multiply_adds`` are of one inference with every open size taken as 1; latencies are medians in
    milliseconds, measured in turn, on one thread.
    """

    parameters: tuple[int, int]
    multiply_adds: tuple[int, int]
    bytes: tuple[int, int]
    latency_ms: tuple[float, float] | None = None


@dataclass(frozen=True)
class ProductReport:
    """One product with a constant matrix.

    ``rows`` of activations are expected; ``reason`` says why it stays as it is, and is None where a kernel does it.
    """

    node: str
    weight: str
    sparsity: float
    rows: int
    reason: str | None = None


@dataclass(frozen=True)
class AcceleratedReport:
    """What became of the products of a model; latencies and bytes are before and after.

    Latencies are medians in milliseconds over the first sample, measured in turn, with the kernels where
    ``kernels`` says that this machine has them.
    """

    products: tuple[ProductReport, ...]
    kernels: bool
    latency_ms: tuple[float, float]
    bytes: tuple[int, int]


@dataclass(frozen=True)
class BenchReport:
    """One model as it runs beside others: the median latency of a run, and where the middle half of the rounds lies.

    ``speedup`` is over the first, dense one; ``memory_bytes`` is by how much loading made the process grow at most.
    """

    model: str
    latency_ms: float
    quartiles_ms: tuple[float, float]
    speedup: float
    samples_per_s: float
    load_ms: float
    memory_bytes: int | None
    bytes: int


@dataclass(frozen=True)
class SplitSizes:
    """Samples in each part of the data."""

    calibration: int
    search: int
    held_out: int


@dataclass(frozen=True)
class TrialReport:
    """One trial of the search: what it cost (in the unit searched for) and what it lost.

    ``chosen`` holds the hyper-parameters that it decided, by their fields in the recipe.
    """

    trial: int
    cost: float
    drop: float
    drop_upper: float
    sparsity: Mapping[str, float]
    chosen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FinishReport:
    """How the plan of trial ``trial`` was pruned once more with full reconstruction.

    It is ``shift`` halvings of density sparser than that trial; the rest as of a trial.
    """

    trial: int
    shift: float
    cost: float
    drop: float
    drop_upper: float


@dataclass(frozen=True)
class InsteadReport:
    """Where the plan found breaks the limit on held-out samples: the best trial that keeps it there.

    ``looked_at`` counts the trials whose held-out drop was measured to find it, the first one best: the
    more, the less that drop is an unbiased one. ``chosen`` as of a trial.
    """

    trial: int
    cost: float
    held_out_drop: float
    drop_ci95: tuple[float, float]
    looked_at: int
    sparsity: Mapping[str, float]
    chosen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchReport:
    """How the plan was found.

    ``candidates`` counts every one that was evaluated; ``chosen`` holds the hyper-parameters that the
    search decided, by their fields in the recipe.
    """

    controller: str
    objective: str
    trials: int
    candidates: int
    seed: int
    unit: str
    confidence: float
    splits: SplitSizes
    best: tuple[TrialReport, ...]
    finish: FinishReport | None = None
    instead: InsteadReport | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TargetReport:
    """What was asked for, what was reached, in which unit, and whether that is enough."""

    asked: str
    unit: str
    reached: float
    met: bool


@dataclass(frozen=True)
class StepReport:
    """One step of a recipe: how long it took when it was done, when that was, and what it was made from."""

    step: str
    seconds: float
    done: Literal["now", "in_a_trial", "before"]
    fingerprint: str


@dataclass(frozen=True)
class ExpectedStep:
    """One step that would be done: what it does, about how many seconds, and whether it is done already."""

    step: str
    does: str
    seconds: float
    done: bool


@dataclass(frozen=True)
class Report:
    """Everything that a command has to say; see ``docs/reference/report.md`` for the JSON form.

    ``output`` is the model that was made, an ``onnx_ir.Model``, where no path was given to write it
    to; it has no place in the JSON form.
    """

    command: str
    model: ModelReport
    seed: int | None = None
    weights: tuple[WeightReport, ...] | None = None
    skipped: tuple[SkippedReport, ...] | None = None
    totals: Totals | None = None
    quality: Quality | None = None
    target: TargetReport | None = None
    verification: Verification | None = None
    shrunk: ShrinkReport | None = None
    accelerated: AcceleratedReport | None = None
    bench: tuple[BenchReport, ...] | None = None
    search: SearchReport | None = None
    steps: tuple[StepReport, ...] | None = None
    expected: tuple[ExpectedStep, ...] | None = None
    memory: Mapping[str, Any] | None = None
    hardware: Mapping[str, Any] | None = None
    memories: tuple[Mapping[str, Any], ...] | None = None
    points: tuple[DesignPoint, ...] | None = None
    methods: Mapping[str, str] | None = None
    warnings: tuple[str, ...] = ()
    timings_s: Mapping[str, float] | None = None
    output: Any = field(default=None, compare=False, repr=False)
    schema_version: int = SCHEMA_VERSION
    tool_version: str = onnxprune.__version__

    @property
    def succeeded(self) -> bool:
        """Every target was met, every check passed, and there was something to do."""
        return all(
            (
                self.quality is None or self.quality.target_met,
                self.target is None or self.target.met,
                self.verification is None or self.verification.passed,
                self.weights is None or bool(self.weights),
            )
        )

    def with_timings(self, timings_s: Mapping[str, float]) -> Report:
        """The same report with the seconds that each step took."""
        return replace(self, timings_s=dict(timings_s))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, keys that do not apply left out."""
        plain = _plain(self)
        head = ("schema_version", "tool_version", "command", "seed", "model")
        ordered = {key: plain[key] for key in head if key in plain}
        return ordered | {key: value for key, value in plain.items() if key not in ordered}

    def to_json(self) -> str:
        """The report as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


def describe_model(path: Path, model: ir.Model) -> ModelReport:
    """Name, fingerprint and opsets of a model file; its size with that of its external data."""
    opset = {domain or "ai.onnx": version for domain, version in model.opset_imports.items()}
    return replace(describe_file(path), bytes=file_bytes(path, model), opset=opset)


def describe_file(path: Path) -> ModelReport:
    """Name and fingerprint of a file."""
    content = path.read_bytes()
    return ModelReport(str(path), hashlib.sha256(content).hexdigest(), len(content))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in fields(value) if f.name != "output")
        return {name: _plain(item) for name, item in pairs if item is not None}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
