"""The sections of a recipe: what is decided about data, searching, pruning, hardware and training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from onnxprune.rules import checked_pattern

Unit = Literal["elements", "packed_bytes", "blob_bytes", "cycles"]


class Section(BaseModel):
    """Fields that are checked when a recipe is read, and stay as they are; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Share = Annotated[float, Field(gt=0, lt=1)]
PatternName = Annotated[str, AfterValidator(checked_pattern)]
Varied = bool | int | float | str


class DataSection(Section):
    """How data are split, and how models are scored."""

    calibration: Annotated[float, Field(ge=0, lt=1)] = 0.1
    search: Share = 0.45
    metric: str | None = None

    @model_validator(mode="after")
    def _leaves_some(self) -> DataSection:
        if self.calibration + self.search >= 1:
            msg = "calibration and search together must leave a held-out part (be below 1)"
            raise ValueError(msg)
        return self


class SearchSection(Section):
    """Who searches for what, for how long, and how sure a trial must be to count as good.

    ``controller`` ``auto`` is the one that measures best, at any number of weights ``bayes``.
    ``objective`` ``cost`` finds the smallest model that keeps ``max_drop``, ``drop`` the best one within
    the target, ``front`` the best one at every size. ``unit`` is what size means where there is no target:
    ``elements`` (when null), ``packed_bytes``, ``blob_bytes`` or ``cycles``. ``trials`` and ``minutes`` both end a search.
    ``groups`` are shell patterns of weight or node names that share one sparsity (null: only models of
    very many weights are grouped, by similar layers). ``finish`` is how often the plan found is
    pruned once more with full reconstruction, sparser each time (0: not at all). ``workers`` trials
    are made at the same time, by processes of this machine or by a ``backend`` whose cluster answers at
    ``scheduler``. ``vary`` lists the values of hyper-parameters that the controller decides too:
    ``prune.method``, ``prune.damping`` or ``prune.pattern``; ``prune: {damping: {search: [0.001, 0.1,
    log]}}`` says the same. Fields of steps are named as ``steps.0.penalty.strength``; where some are searched, a
    trial is made with a share of its passes first (``fidelity``, null: not), and goes on only while it is among
    the best one in ``reduction`` of those that came as far.
    """

    controller: Literal["auto", "bayes", "evolution", "random", "rl"] = "auto"
    objective: Literal["cost", "drop", "front"] = "cost"
    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    minutes: Annotated[float, Field(gt=0)] | None = None
    unit: Unit | None = None
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.999
    groups: tuple[str, ...] | None = None
    finish: Annotated[int, Field(ge=0, le=100)] = 6
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    backend: Literal["local", "dask", "ray"] = "local"
    scheduler: str | None = None
    vary: dict[str, Annotated[tuple[Varied, ...], Field(min_length=2)]] = {}
    fidelity: Share | None = 0.25
    reduction: Annotated[float, Field(ge=1, le=100)] = 3.0


class PruneSection(Section):
    """What is pruned, how and in which pattern; rules say more of single weights.

    Method, damping, pattern and reconstruct are those of ``onnxprune prune``. A search tries plans layer by
    layer, and reconstructs by blocks where it finishes one.
    """

    method: Literal["obs", "admm", "exact", "sparsegpt", "wanda", "magnitude"] = "obs"
    damping: Annotated[float, Field(ge=0, le=10)] = 0.01
    pattern: PatternName = "unstructured"
    reconstruct: Literal["layers", "blocks"] = "layers"
    nodes_to_exclude: tuple[str, ...] = ()
    op_types_to_prune: tuple[str, ...] | None = None


def _encodings_schema(schema: dict[str, Any]) -> None:
    from hwmodel.encodings import encoding_names

    schema["enum"] = ["auto", "auto-cycles", *encoding_names()]


class EncodeSection(Section):
    """How the hardware blob is encoded.

    ``encoding`` is ``auto`` (fewest bytes for each weight), ``auto-cycles`` (fewest cycles on the
    hardware that ``estimate`` describes) or a name. ``chunk`` counts weights, 0 for one chunk; left
    out it is 1024 with ``auto-cycles`` or a decoder, else 0. ``decoder`` names the encodings that the
    hardware knows; empty for all.
    """

    encoding: Annotated[str, Field(json_schema_extra=_encodings_schema)] = "auto"
    chunk: Annotated[int, Field(ge=0, le=1 << 40)] | None = None
    align: Annotated[int, Field(ge=1, le=1 << 16)] = 1
    decoder: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> EncodeSection:
        from onnxprune.design_space import check_storage

        check_storage(self.encoding, self.align, self.decoder)
        return self


class EstimateSection(Section):
    """From which memory the blob is fetched, and what stands behind it.

    ``memory`` is a name or a YAML file. Without ``decoder_lanes`` cycles are those of the fetch
    alone; with ``compute_lanes`` they end when every nonzero weight is used. ``clock_ratio`` is clocks
    of decoder and compute units in one of the memory; ``buffers`` 1 is single buffering, 2 double.
    """

    memory: str = "ddr4-2400"
    decoder_lanes: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    decoder_width: Annotated[int, Field(ge=1, le=1 << 20)] = 1
    compute_lanes: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    clock_ratio: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    buffers: Annotated[int, Field(ge=1, le=1 << 20)] = 2
    buffer_bytes: Annotated[int, Field(ge=1, le=1 << 40)] = 4096


class PhaseSection(Section):
    """How many passes over the training data each phase of a cycle takes."""

    sparsify: Annotated[int, Field(ge=0, le=100_000)] = 6
    prune: Annotated[int, Field(ge=0, le=100_000)] = 25
    recover: Annotated[int, Field(ge=0, le=100_000)] = 20


class PenaltyForm(Section):
    """What pulls weights to zero, and in which form."""

    name: Literal["l_half", "l1", "l2", "group_l_half", "group_l1", "none"] = "l_half"
    form: Literal["smoothed", "proximal"] = "smoothed"
    smoothing: Annotated[float, Field(gt=0)] = 1e-3
    ramp: Share | Literal[0] = 0
    by_weight: dict[str, Annotated[float, Field(ge=0)]] = {}


class PenaltySection(PenaltyForm):
    """What pulls weights to zero, and how hard.

    ``strength`` is for sparsifying, ``prune_strength`` for pruning and ``recover_strength`` for
    recovering; ``by_weight`` multiplies them for weights by name. ``prune_strength: auto`` draws
    masks by the penalty's own map, at the strength that leaves the weights due. ``form`` ``smoothed`` adds a
    gradient to the loss's, ``proximal`` applies the penalty's exact map after each step.
    """

    strength: Annotated[float, Field(ge=0)] = 3e-5
    prune_strength: Annotated[float, Field(ge=0)] | Literal["auto"] = 1e-5
    recover_strength: Annotated[float, Field(ge=0)] = 0.0


class OptimizerSection(Section):
    """How weights move."""

    name: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch: Annotated[int, Field(ge=1)] = 128
    precision: Literal["float32", "bfloat16", "float16"] = "float32"


class LossSection(Section):
    """What is minimised: a loss against labels, and the distance to the dense model's outputs.

    ``name`` is ``auto`` (cross-entropy for class numbers, mse for floats), ``cross_entropy``,
    ``mse`` or ``module:function`` (outputs, labels -> scalar). ``distill`` is the share of the
    distance to the dense model; without labels it is all.
    """

    name: str = "auto"
    distill: Annotated[float, Field(ge=0, le=1)] = 0.7
    temperature: Annotated[float, Field(gt=0)] = 2.0


class TrainingFields(Section):
    """What all training has: how weights move, towards what, on which data."""

    optimizer: OptimizerSection = OptimizerSection()
    loss: LossSection = LossSection()
    augment: str | None = None
    batch_norm: Literal["fixed", "train"] = "fixed"
    dropout: bool = False
    checkpoint_every: Annotated[int, Field(ge=1)] = 1000


class CutFields(Section):
    """What pruning in training has: which weights are cut, in which pattern, and when."""

    saliency: Literal["magnitude", "lamp", "fisher"] = "fisher"
    pattern: PatternName = "unstructured"
    schedule: Literal["cubic", "log_linear"] = "log_linear"
    prune_every: Annotated[int, Field(ge=1)] = 47


class FinetuneSection(TrainingFields, CutFields):
    """How ``finetune`` trains; the target is the recipe's own, as a compression rate.

    ``saliency`` says what a weight is worth: ``magnitude``, ``lamp`` (Lee et al. 2021) or
    ``fisher`` (w^2 sqrt(E[g^2]), from the moments that the optimizer keeps; for SGD they are kept
    beside it). ``pattern`` is that of the masks, as of ``prune``; rules say another for single weights.
    Masks are drawn anew every ``prune_every`` steps on the ``schedule``, over all
    weights together, or by weight where a plan is given. ``keep_zeros``: zeros of the model stay.
    ``validation`` and ``held_out`` are shares of the data.
    """

    phases: PhaseSection = PhaseSection()
    cycles: Annotated[int, Field(ge=1, le=1000)] = 1
    penalty: PenaltySection = PenaltySection()
    keep_zeros: bool = True
    validation: Share = 0.1
    held_out: Share = 0.1
    patience: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _leaves_some(self) -> FinetuneSection:
        if self.validation + self.held_out >= 1:
            msg = "validation and held_out together must leave data to train on (be below 1)"
            raise ValueError(msg)
        return self
