"""Weights in branches, functions and loops, tied and cut ones: watched, pruned, and better than by magnitude."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from passes.assign import AssignConstantsPass
from passes.courses import NOT_TAKEN, Courses
from passes.sequential import Options
from passes.weights import collect_weights
from tests.passes.test_readers import runner

HEAD = '<ir_version: 9, opset_import: ["" : 17, "local" : 1]>'
BATCHES = 4

MODELS = {
    "branches of an If": """
        agraph (float[N,6] x, float[1] a) => (float[N,5] y) {
            zero = Constant <value_float = 0.0>()
            total = ReduceSum <keepdims = 0>(a)
            more = Greater(total, zero)
            h = If (more) <
                then_branch = g1 () => (z) { m = MatMul(x, w_one) z = Add(m, b_one) },
                else_branch = g2 () => (z) { m = MatMul(x, w_two) z = Relu(m) }
            >
            y = MatMul(h, w_last)
        }""",
    "an If in an If": """
        agraph (float[N,6] x, float[1] a) => (float[N,5] y) {
            zero = Constant <value_float = 0.0>()
            total = ReduceSum <keepdims = 0>(a)
            more = Greater(total, zero)
            less = Less(total, zero)
            y = If (more) <
                then_branch = g1 () => (z) {
                    z = If (less) <
                        then_branch = g3 () => (k) { k = MatMul(x, w_never) },
                        else_branch = g4 () => (k) { m = MatMul(x, w_one) k = MatMul(m, w_last) }
                    >
                },
                else_branch = g2 () => (z) { m = MatMul(x, w_two) z = MatMul(m, w_last) }
            >
        }""",
    "a function called twice": """
        agraph (float[N,6] x, float[1] a) => (float[N,6] y) {
            h = local.part (x, w_one)
            y = local.part (h, w_square)
        }
        <domain: "local", opset_import: ["" : 17]>
        part (u, w) => (v) { m = MatMul(u, w) t = Tanh(m) v = Relu(t) }""",
    "a Loop": """
        agraph (float[N,6] x, float[1] a) => (float[N,5] y) {
            trips = Constant <value_int = 3>()
            true = Constant <value = bool {1}>()
            last = Loop (trips, true, x) <
                body = g1 (int64 i, bool c, float[N,6] s) => (bool d, float[N,6] t) {
                    d = Identity(c)
                    m = MatMul(s, w_square)
                    t = Tanh(m)
                }
            >
            y = MatMul(last, w_last6)
        }""",
    "a Scan": """
        agraph (float[N,6] x, float[1] a) => (float[6] s, float[N,5] y) {
            start = Constant <value = float[6] {0,0,0,0,0,0}>()
            s, y = Scan (start, x) <
                num_scan_inputs = 1,
                body = g1 (float[6] u, float[6] r) => (float[6] v, float[5] o) {
                    p = Add(u, r)
                    m = MatMul(p, w_square)
                    v = Tanh(m)
                    o = MatMul(v, w_last6)
                }
            >
        }""",
    "one weight in two layers": """
        agraph (float[N,6] x, float[1] a) => (float[N,5] y) {
            m = MatMul(x, w_square)
            h = Tanh(m)
            k = MatMul(h, w_square)
            y = MatMul(k, w_last6)
        }""",
    "parts of a weight": """
        agraph (float[N,6] x, float[1] a) => (float[N,6] y) {
            sizes = Constant <value_ints = [6, 12]>()
            q, kv = Split <axis = 1>(w_wide, sizes)
            h = Tanh(x)
            m = MatMul(x, q)
            k = MatMul(h, kv)
            halves = Constant <value_ints = [6, 6]>()
            left, right = Split <axis = 1>(k, halves)
            n = Mul(m, left)
            y = Add(n, right)
        }""",
    "parts that the data cut": """
        agraph (float[N,6] x, float[1] a) => (float[N,12] y) {
            shape = Shape(x)
            one = Constant <value_int = 1>()
            size = Gather(shape, one)
            axes = Constant <value_ints = [1]>()
            start = Unsqueeze(size, zero_axis)
            stop = Constant <value_ints = [18]>()
            part = Slice(w_wide, start, stop, axes)
            y = MatMul(x, part)
        }""",
    "a chain": """
        agraph (float[N,6] x, float[1] a) => (float[N,5] y) {
            shape = Constant <value_ints = [5, 6]>()
            r = Reshape(w_flat, shape)
            t = Transpose <perm = [1, 0]>(r)
            i = Identity(t)
            y = MatMul(x, i)
        }""",
}

NEVER = {"w_never": NOT_TAKEN}


def built(text: str) -> Any:
    model = parser.parse_model(HEAD + text)
    rng = np.random.default_rng(3)
    sizes = {
        "w_one": (6, 6),
        "w_two": (6, 6),
        "w_never": (6, 5),
        "w_last": (6, 5),
        "w_last6": (6, 5),
        "w_square": (6, 6),
        "w_wide": (6, 18),
        "w_flat": (30,),
        "b_one": (6,),
    }
    for name, shape in sizes.items():
        if name in text:
            array = rng.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    if "zero_axis" in text:
        array = np.zeros(1, np.int64)
        model.graph.initializer.append(numpy_helper.from_array(array, "zero_axis"))
    onnx.checker.check_model(model)
    return model


def feeds(seed: int) -> list[dict[str, np.ndarray]]:
    """Half of the batches with a positive, half with a negative ``a``."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((6, 6))
    return [
        {
            "x": (rng.standard_normal((64, 6)) @ mixing).astype(np.float32),
            "a": np.full(1, 1 - 2 * (number % 2), np.float32),
        }
        for number in range(BATCHES)
    ]


def pruned(
    proto: Any, method: str, batches: list[dict[str, np.ndarray]]
) -> tuple[Any, Any, Courses]:
    model = ir.from_proto(proto)
    weights = collect_weights(model).weights
    courses = Courses(model, weights, batches, runner)
    keep = {weight.name: weight.elements // 2 for weight in weights}
    made = courses.prune(keep, Options(method=method), {})
    AssignConstantsPass(made.constants)(model)
    return ir.to_proto(model), made, courses


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_is_watched_and_errors_are_below_those_of_magnitude(name: str) -> None:
    proto, batches = built(MODELS[name]), feeds(0)

    def outputs(model: Any) -> np.ndarray:
        made = runner(model.SerializeToString(), batches)
        return np.concatenate([array.ravel() for feed in made for array in feed.values()])

    after, made, courses = pruned(proto, "obs", batches)
    assert {key: value for key, value in courses.reasons.items() if key not in NEVER} == {}
    assert courses.reasons.items() <= NEVER.items()
    weights = {weight.name: weight for weight in collect_weights(ir.from_proto(after)).weights}
    for key, mask in made.masks.items():
        assert mask.sum() == weights[key].elements // 2
        assert not weights[key].matrices()[~mask].any()
    plain = pruned(proto, "magnitude", batches)[0]
    dense = outputs(proto)
    errors = [((outputs(model) - dense) ** 2).mean() for model in (after, plain)]
    assert errors[0] < errors[1]
    again = pruned(proto, "obs", batches)[0]
    assert again.SerializeToString() == after.SerializeToString()


def test_parts_are_solved_with_what_each_of_them_multiplies() -> None:
    """The Gram matrices of a weight that is cut are those of its readers, part by part."""
    model, batches = ir.from_proto(built(MODELS["parts of a weight"])), feeds(0)
    courses = Courses(model, collect_weights(model).weights, batches, runner)
    layer = courses.layers["w_wide"]
    assert layer.shape == (3, 6, 6)
    grams = courses.moments(10**9, 0)["w_wide"].gram
    x = np.concatenate([feed["x"] for feed in batches]).astype(np.float64)
    for gram, seen in zip(grams, (x, np.tanh(x), np.tanh(x)), strict=True):
        np.testing.assert_allclose(gram, seen.T @ seen, rtol=1e-4)


def test_tied_weights_sum_what_their_readers_multiply() -> None:
    model, batches = ir.from_proto(built(MODELS["one weight in two layers"])), feeds(0)
    courses = Courses(model, collect_weights(model).weights, batches, runner)
    assert courses.layers["w_square"].unrolled
    w = courses.layers["w_square"].weight.array().astype(np.float64)
    x = np.concatenate([feed["x"] for feed in batches]).astype(np.float64)
    h = np.tanh(x @ w)
    gram = courses.moments(10**9, 0)["w_square"].gram[0]
    np.testing.assert_allclose(gram, x.T @ x + h.T @ h, rtol=1e-4)


def test_loops_sum_over_their_iterations() -> None:
    model, batches = ir.from_proto(built(MODELS["a Loop"])), feeds(0)
    courses = Courses(model, collect_weights(model).weights, batches, runner)
    w = courses.layers["w_square"].weight.array().astype(np.float64)
    state = np.concatenate([feed["x"] for feed in batches]).astype(np.float64)
    want = np.zeros((6, 6))
    for _ in range(3):
        want += state.T @ state
        state = np.tanh(state @ w)
    np.testing.assert_allclose(courses.moments(10**9, 0)["w_square"].gram[0], want, rtol=1e-4)


def test_batches_are_dealt_to_the_courses_that_they_take() -> None:
    model, batches = ir.from_proto(built(MODELS["branches of an If"])), feeds(0)
    courses = Courses(model, collect_weights(model).weights, [*batches, batches[0]], runner)
    found = [
        (len(course.batches), sorted(layer.name for layer in course.layers)) for course in courses
    ]
    assert found == [(3, ["w_last", "w_one"]), (2, ["w_two"])]


def test_outputs_move_with_constants_wherever_they_are() -> None:
    model, batches = ir.from_proto(built(MODELS["a Loop"])), feeds(0)
    courses = Courses(model, collect_weights(model).weights, batches, runner)
    sensitivity = courses.sensitivity(64, 2**20)
    error = sensitivity({"w_square": np.zeros((6, 6), np.float32)})
    assert error is not None
    assert error > 0.1
    assert sensitivity({"nowhere": np.zeros(1)}) is None
