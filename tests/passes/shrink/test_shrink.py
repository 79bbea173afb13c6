"""Shrinking: outputs stay, dead channels go, the interface is never touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model_io import load_model, model_bytes
from passes.shrink import ShrinkPass, size_of
from passes.weights import collect_weights


class Graph:
    """Builds a model node by node; ``x`` is the input."""

    def __init__(self, shape: list[int | None], seed: int = 0, opset: int = 17) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape, self.opset = shape, opset
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.extra_inputs: list[onnx.ValueInfoProto] = []

    def const(self, array: np.ndarray, name: str | None = None) -> str:
        name = name or f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes) -> str:
        names = [f"v{len(self.nodes)}" + (f".{i}" if i else "") for i in range(outputs)]
        self.nodes.append(
            helper.make_node(op_type, list(inputs), names, name=f"n{len(self.nodes)}", **attributes)
        )
        return names[0]

    def random(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def weight(self, *shape: int, dead_rows=(), dead_columns=(), rows: int = 0) -> np.ndarray:
        array = self.random(*shape)
        np.moveaxis(array, rows, 0)[list(dead_rows)] = 0
        np.moveaxis(array, 1 - rows, 0)[list(dead_columns)] = 0
        return array

    def model(self, *outputs: str) -> ir.Model:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape),
                *self.extra_inputs,
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.tensors,
        )
        proto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )
        proto = onnx.shape_inference.infer_shapes(proto)
        onnx.checker.check_model(proto, full_check=True)
        return ir.from_proto(proto)


def run(content: bytes, seed: int = 0) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    feeds = {
        value.name: rng.standard_normal(
            [size if isinstance(size, int) else 2 for size in value.shape]
        ).astype(np.float32)
        for value in session.get_inputs()
    }
    return session.run(None, feeds)


def shrink(model: ir.Model) -> tuple[int, int]:
    """Shrink, check everything that must hold, and return the parameters before and after."""
    before, content = size_of(model), model_bytes(model)
    interface = [(v.name, v.dtype, v.shape) for v in (*model.graph.inputs, *model.graph.outputs)]
    modified = ShrinkPass()(model).modified
    after, small = size_of(model), model_bytes(model)
    assert modified == (after.parameters < before.parameters)
    assert after.multiply_adds <= before.multiply_adds
    assert interface == [
        (v.name, v.dtype, v.shape) for v in (*model.graph.inputs, *model.graph.outputs)
    ]
    onnx.checker.check_model(onnx.ModelProto.FromString(small), full_check=True)
    for old, new in zip(run(content), run(small), strict=True):
        assert old.shape == new.shape
        scale = np.abs(old).max() if old.size else 0
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5 * max(1.0, float(scale)))
    assert not ShrinkPass()(model).modified, "it is a fixed point"
    assert model_bytes(model) == small
    return before.parameters, after.parameters


def test_dead_rows_go_with_their_columns_and_their_bias_is_carried_on() -> None:
    g = Graph([None, 6])
    w1, b1 = g.weight(6, 8, dead_rows=[1, 4], rows=1), g.random(8)
    hidden = g.op("Relu", g.op("Gemm", "x", g.const(w1), g.const(b1)))
    out = g.op("Gemm", hidden, g.const(g.random(8, 3)), g.const(g.random(3)))
    assert shrink(g.model(out)) == (6 * 8 + 8 + 8 * 3 + 3, 6 * 6 + 6 + 6 * 3 + 3)


def test_channels_that_nobody_reads_go_at_their_producer_and_so_on_upwards() -> None:
    g = Graph([None, 6])
    hidden = g.op("MatMul", "x", g.const(g.random(6, 8)))
    hidden = g.op("MatMul", g.op("Tanh", hidden), g.const(g.random(8, 7)))
    out = g.op("MatMul", hidden, g.const(g.weight(7, 3, dead_rows=[0, 1, 2, 3, 4, 5])))
    _, after = shrink(g.model(out))
    assert after == 6 * 8 + 8 * 1 + 1 * 3


def test_a_constant_into_a_matmul_without_bias_gets_an_add() -> None:
    g = Graph([None, 6])
    hidden = g.op("Gemm", "x", g.const(g.weight(6, 8, dead_rows=[2], rows=1)), g.const(g.random(8)))
    hidden = g.op("MatMul", hidden, g.const(g.random(8, 5)))
    out = g.op("MatMul", g.op("Sigmoid", hidden), g.const(g.random(5, 3)))
    model = g.model(out)
    shrink(model)
    assert [node.op_type for node in model.graph].count("Add") == 1


@pytest.mark.parametrize(("pads", "goes"), [([0, 0, 0, 0], True), ([1, 1, 1, 1], False)])
def test_zero_padding_keeps_a_constant_that_is_not_zero(pads: list[int], goes: bool) -> None:
    g = Graph([None, 3, 8, 8])
    hidden = g.op(
        "Conv", "x", g.const(g.weight(5, 3, 3, 3, dead_rows=[1])), g.const(np.ones(5, np.float32))
    )
    out = g.op("Conv", hidden, g.const(g.random(4, 5, 3, 3)), pads=pads)
    before, after = shrink(g.model(out))
    assert (after < before) == goes


def test_zero_padding_lets_a_constant_zero_go() -> None:
    g = Graph([None, 3, 8, 8])
    bias = np.array([1, -1, 1, 1, 1], np.float32)
    hidden = g.op("Conv", "x", g.const(g.weight(5, 3, 3, 3, dead_rows=[1])), g.const(bias))
    hidden = g.op("Relu", hidden)  # -1 becomes 0
    out = g.op("Conv", hidden, g.const(g.random(4, 5, 3, 3)), pads=[1, 1, 1, 1])
    before, after = shrink(g.model(out))
    assert before - after == 3 * 9 + 1 + 4 * 9


def test_batch_normalization_and_pooling_carry_constants() -> None:
    g = Graph([None, 3, 8, 8])
    hidden = g.op("Conv", "x", g.const(g.weight(6, 3, 3, 3, dead_rows=[0, 5])))
    parameters = [g.const(np.abs(g.random(6)) + 0.5) for _ in range(4)]
    hidden = g.op("BatchNormalization", hidden, *parameters)
    hidden = g.op("HardSwish", hidden)
    hidden = g.op("MaxPool", hidden, kernel_shape=[2, 2], strides=[2, 2])
    hidden = g.op("Flatten", hidden)
    out = g.op("Gemm", hidden, g.const(g.random(6 * 9, 4)))
    before, after = shrink(g.model(out))
    assert before - after == 2 * 27 + 2 * 4 + 2 * 9 * 4 - 4  # the last: a bias that was not there


def test_residual_sums_go_only_where_both_sides_are_dead() -> None:
    g = Graph([None, 4, 6, 6])
    left = g.op("Conv", "x", g.const(g.weight(6, 4, 1, 1, dead_rows=[0, 1])))
    right = g.op("Conv", left, g.const(g.weight(6, 6, 3, 3, dead_rows=[1, 2])), pads=[1] * 4)
    hidden = g.op("Relu", g.op("Add", left, right))
    out = g.op("Conv", hidden, g.const(g.random(2, 6, 1, 1)))
    before, after = shrink(g.model(out))
    assert before - after == 4 + (6 * 9 + 5 * 9) + 2  # channel 1 alone


def test_concat_split_transpose_and_reduce() -> None:
    g = Graph([None, 4, 6, 6])
    a = g.op("Conv", "x", g.const(g.weight(6, 4, 1, 1, dead_rows=[0, 1])))
    b = g.op("Conv", "x", g.const(g.weight(6, 4, 1, 1, dead_rows=[3])))
    both = g.op("Concat", a, b, axis=1)
    g.op("Split", both, g.const(np.array([5, 7])), outputs=2, axis=1)
    first, second = g.nodes[-1].output
    first = g.op("GlobalAveragePool", first)
    second = g.op("ReduceMean", second, axes=[2, 3], keepdims=1)
    again = g.op("Concat", first, second, axis=1)
    last = g.op("Transpose", again, perm=[0, 2, 3, 1])
    out = g.op("MatMul", last, g.const(g.random(12, 3)))
    before, after = shrink(g.model(out))
    assert before - after == 3 * 4 + 3 * 3


def test_depthwise_and_grouped_convolutions() -> None:
    g = Graph([None, 3, 8, 8])
    hidden = g.op("Conv", "x", g.const(g.weight(8, 3, 1, 1, dead_rows=[0, 2, 3])))
    hidden = g.op("Conv", hidden, g.const(g.weight(16, 1, 3, 3)), group=8)
    hidden = g.op("Relu", hidden)
    grouped = g.weight(8, 4, 1, 1, dead_rows=[4, 5])  # the third of four groups
    hidden = g.op("Conv", hidden, g.const(grouped), group=4)
    out = g.op("Conv", hidden, g.const(g.random(2, 8, 1, 1)))
    before, after = shrink(g.model(out))
    assert after < before


def test_transposed_convolution() -> None:
    g = Graph([None, 3, 5, 5])
    hidden = g.op("Conv", "x", g.const(g.weight(6, 3, 1, 1, dead_rows=[1])))
    weight = g.weight(6, 4, 3, 3, dead_rows=[2], rows=1)
    hidden = g.op("ConvTranspose", hidden, g.const(weight), g.const(g.random(4)), strides=[2, 2])
    out = g.op("Conv", hidden, g.const(g.random(2, 4, 1, 1)), g.const(g.random(2)))
    before, after = shrink(g.model(out))
    assert before - after == 3 + 4 * 9 + (5 * 9 + 1) + 2


@pytest.mark.parametrize("op_type", ["LSTM", "GRU"])
def test_hidden_units_that_stay_zero_or_are_not_read(op_type: str) -> None:
    gates, candidate = (4, 3) if op_type == "LSTM" else (3, 2)
    g = Graph([5, None, 3])
    hidden, zero, unread = 6, 2, 4
    w, r = g.random(1, gates * hidden, 3), g.random(1, gates * hidden, hidden)
    b = g.random(1, 2 * gates * hidden)
    row = candidate * hidden + zero
    w[0, row] = r[0, row] = 0
    b[0, row] = b[0, gates * hidden + row] = 0
    r[0, :, unread] = 0
    y = g.op(op_type, "x", g.const(w), g.const(r), g.const(b), hidden_size=hidden)
    y = g.op("Squeeze", y, g.const(np.array([1])))
    last = g.weight(hidden, 2, dead_rows=[unread])
    out = g.op("MatMul", y, g.const(last))
    _, after = shrink(g.model(out))
    left = hidden - 2
    assert after == gates * left * (3 + left + 2) + 2 * left


@pytest.mark.parametrize("op_type", ["LSTM", "GRU"])
@pytest.mark.parametrize("states", [False, True])
def test_a_unit_goes_from_both_directions_or_from_none(op_type: str, states: bool) -> None:
    """Both directions have one hidden size: what is dead in one of them alone must stay."""
    gates, candidate = (4, 3) if op_type == "LSTM" else (3, 2)
    g = Graph([5, 2, 3])
    hidden, in_both, in_one, unread = 7, 2, 4, 5
    w, r = g.random(2, gates * hidden, 3), g.random(2, gates * hidden, hidden)
    b = g.random(2, 2 * gates * hidden)
    for direction, unit in ((0, in_both), (1, in_both), (0, in_one)):
        row = candidate * hidden + unit
        w[direction, row] = r[direction, row] = 0
        b[direction, row] = b[direction, gates * hidden + row] = 0
    r[:, :, unread] = 0
    begin = []
    if states:
        initial = g.random(2, 2, hidden)
        initial[:, :, in_both] = 0
        begin = [g.const(initial)] * (2 if op_type == "LSTM" else 1)
        begin = [g.const(initial.copy()) for _ in begin]
    inputs = ["x", g.const(w), g.const(r), g.const(b), *(["", *begin] if states else [])]
    y = g.op(op_type, *inputs, hidden_size=hidden, direction="bidirectional")
    y = g.op("ReduceSum", y, g.const(np.array([1])), keepdims=0)  # (5, 2, hidden)
    out = g.op("MatMul", y, g.const(g.weight(hidden, 2, dead_rows=[unread])))
    _, after = shrink(g.model(out))
    left = hidden - 2
    kept_states = 2 * 2 * left * len(begin)
    assert after == 2 * gates * left * (3 + left + 2) + 2 * left + kept_states


@pytest.mark.parametrize("op_type", ["LSTM", "GRU"])
@pytest.mark.parametrize("shape", [[0, 0, -1], [5, 2, 12], [0, -1, 12], [-1, 2, 12]])
def test_recurrent_layers_on_top_of_each_other(op_type: str, shape: list[int]) -> None:
    """What the second of two bidirectional layers does not read goes from the first."""
    gates, hidden = (4 if op_type == "LSTM" else 3), 6
    g = Graph([5, 2, 3])
    value, fan_in = "x", 3
    for layer in range(2):
        w = g.random(2, gates * hidden, fan_in)
        r = g.random(2, gates * hidden, hidden)
        if layer == 0:
            r[:, :, 1] = 0
        else:
            w[:, :, [1, 1 + hidden]] = 0
        weights = [g.const(w), g.const(r)]
        value = g.op(op_type, value, *weights, hidden_size=hidden, direction="bidirectional")
        value = g.op("Transpose", value, perm=[0, 2, 1, 3])
        value = g.op("Reshape", value, g.const(np.array(shape)))
        fan_in = 2 * hidden
    out = g.op("MatMul", value, g.const(g.random(2 * hidden, 2)))
    before, after = shrink(g.model(out))
    one_unit = 2 * gates * (2 * hidden + 2)  # of the first layer, in both directions
    assert before - after == one_unit + 2 * gates * hidden * 2


@given(
    op_type=st.sampled_from(["LSTM", "GRU"]),
    directions=st.sampled_from(["forward", "reverse", "bidirectional"]),
    share=st.sampled_from([0.2, 0.6, 0.9]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_outputs_stay_for_recurrent_networks_made_at_random(
    op_type: str, directions: str, share: float, seed: int
) -> None:
    """Rows, columns, biases and states die at random, in one direction or in both."""
    gates, hidden, count = (4 if op_type == "LSTM" else 3), 5, 1 + (directions == "bidirectional")
    g = Graph([4, 2, 3], seed)

    def dead(*shape: int) -> np.ndarray:
        return g.rng.random(shape) < share

    w, r = g.random(count, gates * hidden, 3), g.random(count, gates * hidden, hidden)
    b = g.random(count, 2 * gates * hidden)
    rows = dead(count, gates * hidden)
    w[rows] = r[rows] = 0
    b[np.concatenate([rows, rows], axis=1) & dead(count, 2 * gates * hidden)] = 0
    r[:, :, dead(hidden)] = 0
    y = g.op(
        op_type, "x", g.const(w), g.const(r), g.const(b), hidden_size=hidden, direction=directions
    )
    y = g.op("ReduceSum", y, g.const(np.array([1])), keepdims=0)
    out = g.op("MatMul", y, g.const(g.weight(hidden, 2, dead_rows=np.flatnonzero(dead(hidden)))))
    shrink(g.model(out))


def test_images_keep_a_multiple_of_channels() -> None:
    """onnxruntime's fast convolutions want one; what has no channel axis is not concerned."""
    sizes = {}
    for multiple in (1, 4, 8):
        g = Graph([None, 3, 8, 8])
        value = g.op("Conv", "x", g.const(g.weight(16, 3, 1, 1, dead_rows=range(7))))
        value = g.op("Relu", value)
        value = g.op("Conv", value, g.const(g.weight(6, 16, 3, 3, dead_rows=[1])))
        value = g.op("Flatten", g.op("GlobalAveragePool", value))
        value = g.op("Gemm", value, g.const(g.weight(6, 9, dead_rows=[2], rows=0)))
        out = g.op("Gemm", value, g.const(g.weight(9, 3, dead_rows=[0, 1])))
        model = g.model(out)
        content = model_bytes(model)
        ShrinkPass(multiple=multiple)(model)
        sizes[multiple] = [
            value.const_value.shape[0]
            for value in model.graph.initializers.values()
            if value.const_value is not None and len(value.const_value.shape) == 4
        ]
        for old, new in zip(run(content), run(model_bytes(model)), strict=True):
            np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4)
        assert not ShrinkPass(multiple=multiple)(model).modified
    # The second has six channels, of which four live: no multiple of 8 can be kept.
    assert sizes == {1: [9, 4], 4: [12, 4], 8: [16, 4]}
    with pytest.raises(ir.passes.PreconditionError, match="multiples of 0"):
        ShrinkPass(multiple=0)(g.model(out))


def test_what_is_known_of_other_axes_stays_known() -> None:
    """onnxruntime folds what is computed from it, and does not once a shape is forgotten."""
    g = Graph([None, 3, None, None])
    value = g.op("Conv", "x", g.const(g.weight(8, 3, 1, 1, dead_rows=range(4))))
    out = g.op("Conv", value, g.const(g.random(2, 8, 1, 1)))
    model = g.model(out)
    hidden = next(one for node in model.graph for one in node.outputs if one.name == value)
    hidden.shape = ir.Shape([1, 8, 6, 6])  # as an exporter states it beside open inputs
    ShrinkPass()(model)
    assert hidden.shape == ir.Shape([1, 4, 6, 6])
    onnx.checker.check_model(onnx.ModelProto.FromString(model_bytes(model)), full_check=True)


def test_inputs_outputs_and_shared_weights_are_left_alone() -> None:
    g = Graph([None, 5])
    shared = g.const(g.weight(5, 5, dead_rows=[1], rows=1), "shared")
    once = g.op("MatMul", "x", shared)
    out = g.op("MatMul", once, shared)
    last = g.op("MatMul", out, g.const(g.weight(5, 4, dead_rows=[2], rows=1)))
    model = g.model(last, out)
    assert not ShrinkPass()(model).modified


def test_a_layer_that_is_all_dead_keeps_one_channel() -> None:
    g = Graph([None, 5])
    hidden = g.op("Gemm", "x", g.const(np.zeros((5, 8), np.float32)), g.const(g.random(8)))
    out = g.op("Gemm", hidden, g.const(g.random(8, 3)), g.const(g.random(3)))
    assert shrink(g.model(out))[1] == 5 + 1 + 3 + 3


def test_values_that_a_branch_reads_stay() -> None:
    g = Graph([None, 5])
    hidden = g.op("Gemm", "x", g.const(g.weight(5, 8, dead_rows=[1], rows=1)), g.const(g.random(8)))
    branches = [
        helper.make_graph(
            [helper.make_node("Neg" if then else "Abs", [hidden], [f"b{then}"])],
            f"branch{then}",
            [],
            [helper.make_tensor_value_info(f"b{then}", TensorProto.FLOAT, None)],
        )
        for then in (0, 1)
    ]
    g.extra_inputs.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    g.op("If", "which", then_branch=branches[1], else_branch=branches[0])
    model = g.model(g.nodes[-1].output[0], g.op("Relu", hidden))
    assert not ShrinkPass()(model).modified


BLOCKS = ("conv", "depthwise", "bn", "act", "pool", "residual", "branches", "padconv", "scale")


@given(
    blocks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=7),
    head=st.sampled_from(["flatten", "gap", "transpose"]),
    share=st.sampled_from([0.2, 0.5, 0.8]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_outputs_stay_for_networks_made_at_random(blocks, head, share: float, seed: int) -> None:
    made = RandomNetwork(seed, share)
    value = made.conv("x", 3, made.width)
    for block in blocks:
        value = getattr(made, block)(value)
    model = made.graph.model(made.head(value, head))
    before, content = size_of(model), model_bytes(model)
    ShrinkPass()(model)
    assert size_of(model).parameters <= before.parameters + 4 * len(blocks) + 8
    for old, new in zip(run(content), run(model_bytes(model)), strict=True):
        scale = max(1.0, float(np.abs(old).max()))
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=2e-5 * scale)


class RandomNetwork:
    """Blocks of six channels, some of them dead."""

    width = 6

    def __init__(self, seed: int, share: float) -> None:
        self.graph, self.share = Graph([None, 3, 9, 9], seed), share

    def dead(self, count: int) -> list[int]:
        return np.flatnonzero(self.graph.rng.random(count) < self.share).tolist()

    def const(self, *shape: int) -> str:
        return self.graph.const(self.graph.random(*shape))

    def conv(self, value: str, fan_in: int = 6, fan_out: int = 6, size: int = 1, **extra) -> str:
        g = self.graph
        dead = {"dead_rows": self.dead(fan_out), "dead_columns": self.dead(fan_in)}
        weight = g.const(g.weight(fan_out, fan_in, size, size, **dead))
        bias = [self.const(fan_out)] if g.rng.random() < 0.5 else []
        return g.op("Conv", value, weight, *bias, **extra)

    def padconv(self, value: str) -> str:
        return self.conv(value, size=3, pads=[1] * 4)

    def depthwise(self, value: str) -> str:
        weight = self.graph.weight(self.width, 1, 3, 3, dead_rows=self.dead(self.width))
        return self.graph.op(
            "Conv", value, self.graph.const(weight), group=self.width, pads=[1] * 4
        )

    def bn(self, value: str) -> str:
        g = self.graph
        parameters = [g.const(np.abs(g.random(self.width)) + 0.1) for _ in range(4)]
        return g.op("BatchNormalization", value, *parameters)

    def act(self, value: str) -> str:
        kinds = ["Relu", "Sigmoid", "HardSwish", "Tanh", "Elu", "Softplus"]
        return self.graph.op(str(self.graph.rng.choice(kinds)), value)

    def pool(self, value: str) -> str:
        kind = str(self.graph.rng.choice(["MaxPool", "AveragePool"]))
        return self.graph.op(kind, value, kernel_shape=[3, 3], pads=[1] * 4)

    def residual(self, value: str) -> str:
        return self.graph.op("Add", value, self.conv(value))

    def branches(self, value: str) -> str:
        return self.graph.op("Concat", self.conv(value, 6, 4), self.conv(value, 6, 2), axis=1)

    def scale(self, value: str) -> str:
        factors = self.graph.weight(self.width, 1, dead_rows=self.dead(self.width))
        return self.graph.op("Mul", value, self.graph.const(factors[:, :, None]))

    def head(self, value: str, kind: str) -> str:
        g = self.graph
        if kind == "flatten":
            weight = g.const(g.weight(self.width * 81, 4, dead_columns=[1]))
            return g.op("Gemm", g.op("Flatten", value), weight)
        if kind == "gap":
            value = g.op("Flatten", g.op("GlobalAveragePool", value))
            return g.op("Gemm", value, self.const(4, self.width), self.const(4), transB=1)
        value = g.op("Transpose", value, perm=[0, 2, 3, 1])
        return g.op("MatMul", value, self.const(self.width, 4))


REAL = (
    "carvana_unet_upsample_small.onnx",
    "cifar10_resnet20_bn.onnx",
    "cifar10_marabou_large.onnx",
    "cms_deepjet_run3.onnx",
    "fastestdet.onnx",
    "ml4acopf_118.onnx",
    "mnist_convnet_maxpool.onnx",
    "nn4sys_mscn_128d_dual.onnx",
)


@pytest.mark.parametrize("name", REAL)
def test_real_models_with_whole_channels_pruned(name: str, shared_models: Path) -> None:
    model = load_model(shared_models / name)
    rng = np.random.default_rng(0)
    for weight in collect_weights(model).weights:
        matrices = weight.matrices().copy()
        matrices[:, rng.random(matrices.shape[1]) < 0.5] = 0
        weight.assign(weight.stored(matrices))
    before, content = size_of(model), model_bytes(model)
    assert ShrinkPass()(model).modified
    assert size_of(model).parameters < 0.9 * before.parameters
    for old, new in zip(run(content), run(model_bytes(model)), strict=True):
        scale = float(np.abs(old).max())
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4 * scale)
