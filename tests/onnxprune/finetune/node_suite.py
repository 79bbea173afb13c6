"""The ONNX wheel's node tests, which of them count, and how the bridge answers each.

Scopes: *typical* tests use only operators common in exports of CNNs, transformers and RNNs; *float*
tests use only operators that take floats. Each test runs as it is, and with all inputs but the
first made initializers, which is how an exported model looks; passing either counts.
"""

from __future__ import annotations

import collections
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx import TensorProto, defs, numpy_helper
from onnx.backend.test.loader import load_model_tests

from onnxprune.finetune.bridge import UnsupportedError, to_torch
from onnxprune.finetune.bridge.dtypes import from_array, to_array

TYPICAL = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Sqrt",
        "Exp",
        "Log",
        "Neg",
        "Abs",
        "Reciprocal",
        "Sign",
        "Floor",
        "Ceil",
        "Round",
        "Mod",
        "Erf",
        "Sin",
        "Cos",
        "Tan",
        "Atan",
        "Min",
        "Max",
        "Sum",
        "Mean",
        "Sigmoid",
        "Tanh",
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Elu",
        "Selu",
        "Celu",
        "Softplus",
        "Softsign",
        "HardSigmoid",
        "HardSwish",
        "Gelu",
        "Mish",
        "Swish",
        "ThresholdedRelu",
        "Clip",
        "Softmax",
        "LogSoftmax",
        "MatMul",
        "Gemm",
        "Einsum",
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "AveragePool",
        "LpPool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "BatchNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "LRN",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Dropout",
        "Flatten",
        "Reshape",
        "Transpose",
        "Concat",
        "Split",
        "Slice",
        "Gather",
        "GatherElements",
        "GatherND",
        "ScatterND",
        "ScatterElements",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Tile",
        "Pad",
        "Resize",
        "Upsample",
        "DepthToSpace",
        "SpaceToDepth",
        "GridSample",
        "ReduceMean",
        "ReduceSum",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceProd",
        "ReduceSumSquare",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "Shape",
        "Size",
        "Constant",
        "ConstantOfShape",
        "Identity",
        "Cast",
        "CastLike",
        "Where",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "And",
        "Or",
        "Not",
        "Xor",
        "IsNaN",
        "IsInf",
        "ArgMax",
        "ArgMin",
        "TopK",
        "CumSum",
        "Range",
        "NonZero",
        "OneHot",
        "Trilu",
        "LSTM",
        "GRU",
        "RNN",
        "Attention",
        "RotaryEmbedding",
    ]
)
RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)  # fmt: skip
NEUTRAL = frozenset(
    [
        "Constant",
        "Shape",
        "Not",
        "And",
        "Or",
        "Size",
        "Xor",
        "ConstantOfShape",
        "If",
        "Loop",
        "Scan",
        "SequenceMap",
    ]
)
LEFT_OUT = frozenset(
    code
    for name, code in TensorProto.DataType.items()
    if name.startswith(("FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2", "STRING"))
)


def _nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(
                attribute.graphs
            ):
                yield from _nodes(inner)


def _element_type(kind):
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        return kind.tensor_type.elem_type
    if which in {"sequence_type", "optional_type"}:
        return _element_type(getattr(kind, which).elem_type)
    return TensorProto.UNDEFINED


@cache
def _takes_float(op_type):
    try:
        schema = defs.get_schema(op_type, "")
    except defs.SchemaError:
        return False
    kinds = {"tensor(float)", "seq(tensor(float))"}
    return any(kinds & set(p.types) for p in [*schema.inputs, *schema.outputs])


def scopes(name, model):
    nodes = list(_nodes(model.graph))
    operators = {node.op_type for node in nodes}
    if (
        not nodes
        or "_expanded" in name
        or "training_dropout" in name
        or operators & RANDOM
        or any(node.domain not in {"", "ai.onnx"} for node in nodes)
        or any(_element_type(v.type) in LEFT_OUT for v in [*model.graph.input, *model.graph.output])
    ):
        return frozenset()
    floats = {op for op in operators if _takes_float(op)}
    found = {"typical"} if operators <= TYPICAL else set()
    if floats and operators <= floats | NEUTRAL:
        found.add("float")
    return frozenset(found)


@dataclass(frozen=True)
class Case:
    name: str
    scopes: frozenset
    model: onnx.ModelProto
    data_sets: tuple
    rtol: float
    atol: float


def _from_file(path, value):
    kind = value.type.WhichOneof("value")
    content = path.read_bytes()
    if kind == "sequence_type":
        proto = onnx.SequenceProto.FromString(content)
        return [np.asarray(a) for a in numpy_helper.to_list(proto)]
    if kind == "optional_type":
        found = numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
        return [np.asarray(a) for a in found] if isinstance(found, list) else found
    return numpy_helper.to_array(onnx.TensorProto.FromString(content))


def _plain(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def cases():
    """All node tests in one of the scopes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load_model_tests(kind="node")
    for case in loaded:
        folder = Path(case.model_dir) if case.model_dir else None
        model = case.model or onnx.load(folder / "model.onnx")
        found = scopes(case.name, model)
        if not found:
            continue
        if case.data_sets is not None:
            sets = tuple(
                tuple([_plain(value) for value in part] for part in pair) for pair in case.data_sets
            )
        else:
            sets = tuple(
                tuple(
                    [
                        _from_file(data / f"{part}_{i}.pb", value)
                        for i, value in enumerate(getattr(model.graph, part))
                    ]
                    for part in ("input", "output")
                )
                for data in sorted(folder.glob("test_data_set_*"))
            )
        yield Case(case.name, found, model, sets, case.rtol, case.atol)


def to_value(value):
    """An input as the module takes it."""
    if value is None or isinstance(value, list):
        return value if value is None else [to_value(v) for v in value]
    return from_array(np.asarray(value))


def as_initializers(model, inputs):
    """The same model with every input but the first stored inside; None where that cannot be."""
    graph = model.graph
    if len(graph.input) < 2 or any(not isinstance(a, np.ndarray) for a in inputs[1:]):
        return None
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for value, array in zip(list(changed.graph.input)[1:], inputs[1:], strict=True):
        changed.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del changed.graph.input[1:]
    return changed


def equal(ours, expected, rtol, atol):
    if isinstance(expected, list):
        return (
            isinstance(ours, list)
            and len(ours) == len(expected)
            and all(equal(o, e, rtol, atol) for o, e in zip(ours, expected, strict=True))
        )
    if expected is None or ours is None:
        return ours is None and expected is None
    expected, got = np.asarray(expected), to_array(ours)
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return False
    if expected.dtype == ml_dtypes.bfloat16:
        got, expected = got.astype(np.float32), expected.astype(np.float32)
    if expected.dtype.kind in "fc":
        return bool(np.allclose(got, expected, rtol=rtol, atol=atol, equal_nan=True))
    return bool(np.array_equal(got, expected))


def answer(model, inputs, expected, case):
    """``ok``, ``wrong``, ``unsupported`` or ``error``, with what was said."""
    try:
        module = to_torch(model)
    except UnsupportedError as error:
        return "unsupported", str(error)
    except Exception as error:  # noqa: BLE001 - the suite counts what goes wrong
        return "error", f"{type(error).__name__}: {error}"
    try:
        with torch.no_grad():
            results = module(*[to_value(value) for value in inputs])
    except Exception as error:  # noqa: BLE001 - the suite counts what goes wrong
        return "error", f"{type(error).__name__}: {error}"
    results = list(results) if isinstance(results, tuple) else [results]
    if len(results) != len(expected):
        return "wrong", f"{len(results)} outputs instead of {len(expected)}"
    for index, (ours, theirs) in enumerate(zip(results, expected, strict=True)):
        if not equal(ours, theirs, case.rtol, case.atol):
            return "wrong", f"output {index}"
    return "ok", ""


def judge(case):
    """The better of the two ways; every data set must pass. A wrong answer either way is told."""
    told = []
    for inputs, expected in case.data_sets:
        found = [answer(case.model, inputs, expected, case)]
        if (changed := as_initializers(case.model, list(inputs))) is not None:
            found.append(answer(changed, inputs[:1], expected, case))
        kinds = [kind for kind, _ in found]
        best = next(k for k in ("ok", "wrong", "error", "unsupported") if k in kinds)
        wrong = next((f for f in found if f[0] == "wrong"), None)
        told.append(wrong or next(f for f in found if f[0] == best))
    worst = next(k for k in ("wrong", "error", "unsupported", "ok") if k in {t[0] for t in told})
    return next(t for t in told if t[0] == worst)


def run_suite():
    """Results by test name: ``(scopes, kind, message)``."""
    return {case.name: (case.scopes, *judge(case)) for case in cases()}


def count(results):
    """``{scope: Counter of kinds}``."""
    table = {"typical": collections.Counter(), "float": collections.Counter()}
    for found, kind, _ in results.values():
        for scope in found:
            table[scope][kind] += 1
    return table
