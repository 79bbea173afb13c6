"""The bridge on small models made on the spot: ties, names, constants, graphs in graphs, modes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import DataError, ModelError
from onnxprune.finetune.bridge import UnsupportedError, supported, to_torch, write_back
from onnxprune.finetune.bridge.listing import listing
from onnxprune.finetune.masks import Masks

F32 = TensorProto.FLOAT


def model_of(nodes, inputs, outputs, initializers=(), *, opset=17, functions=(), domains=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs],
        [numpy_helper.from_array(a, n) for n, a in initializers],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=9)


def ort_run(model, feeds):
    return ort.InferenceSession(model.SerializeToString()).run(None, feeds)


def values(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def same_as_ort(model, feeds, tolerance=1e-5):
    results = to_torch(model)({n: torch.from_numpy(a) for n, a in feeds.items()})
    results = results if isinstance(results, tuple) else (results,)
    for ours, theirs in zip(results, ort_run(model, feeds), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=tolerance, atol=tolerance)


def test_a_tied_embedding_gets_its_whole_gradient() -> None:
    """The table reads tokens and, transposed, writes scores: one parameter, both paths' gradient."""
    table = values(5, 3)
    model = model_of(
        [
            helper.make_node("Gather", ["table", "ids"], ["e"]),
            helper.make_node("Transpose", ["table"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["e", "t"], ["y"]),
        ],
        [("ids", TensorProto.INT64, ["N"])],
        [("y", F32, ["N", 5])],
        [("table", table)],
    )
    module = to_torch(model)
    assert list(module.weights) == ["table"]
    ids = torch.tensor([1, 4, 1])
    module(ids).square().sum().backward()
    w = torch.tensor(table, requires_grad=True)
    (w[ids] @ w.t()).square().sum().backward()
    torch.testing.assert_close(module.weights["table"].grad, w.grad)


def test_names_that_torch_cannot_take_stay_apart() -> None:
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "w.1"], ["h"]),
            helper.make_node("MatMul", ["h", "w/1"], ["y"]),
        ],
        [("x", F32, ["N", 3])],
        [("y", F32, ["N", 3])],
        [("w.1", values(3, 3)), ("w/1", values(3, 3, seed=1))],
    )
    assert set(to_torch(model).weights) == {"w.1", "w/1"}
    same_as_ort(model, {"x": values(2, 3, seed=2)})


def test_a_weight_behind_constant_identity_and_mask_is_trained() -> None:
    weight, mask = values(2, 3), np.array([[1, 0, 1], [0, 1, 1]], np.float32)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(weight)),
        helper.make_node("Identity", ["c"], ["i"]),
        helper.make_node("Mul", ["i", "mask"], ["m"]),
        helper.make_node("Gemm", ["x", "m"], ["y"], transB=1),
    ]
    model = model_of(nodes, [("x", F32, ["N", 3])], [("y", F32, ["N", 2])], [("mask", mask)])
    module = to_torch(model)
    assert set(module.weights) == {"c", "mask"}
    module(torch.ones(1, 3)).sum().backward()
    torch.testing.assert_close(module.weights["c"].grad, torch.tensor(mask))
    with torch.no_grad():
        module.weights["c"].mul_(2)
    assert write_back(model, module) == ("c",)
    stored = numpy_helper.to_array(model.graph.node[0].attribute[0].t)
    np.testing.assert_array_equal(stored, weight * 2)


def test_scalars_and_statistics_are_no_parameters() -> None:
    nodes = [
        helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Mul", ["n", "two"], ["y"]),
    ]
    inits = [(n, values(3, seed=i)) for i, n in enumerate(("s", "b", "m"))]
    inits += [("v", np.abs(values(3, seed=9)) + 0.5), ("two", np.float32(2.0))]
    model = model_of(nodes, [("x", F32, ["N", 3, 4])], [("y", F32, ["N", 3, 4])], inits)
    module = to_torch(model)
    assert set(module.weights) == {"s", "b"}
    assert module.statistics == ("m", "v")
    same_as_ort(model, {"x": values(5, 3, 4, seed=5)})


def test_batch_statistics_on_request_are_written_back_and_alone() -> None:
    nodes = [helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], momentum=0.0)]
    names = ("s", "b", "m", "v")
    inits = [(n, np.full(2, i + 1, np.float32)) for i, n in enumerate(names)]
    model = model_of(nodes, [("x", F32, ["N", 2])], [("y", F32, ["N", 2])], inits)
    module = to_torch(model)
    x = torch.tensor([[1.0, 2.0], [3.0, 8.0]])
    module(x)
    assert write_back(model, module) == ()
    module.set_mode(batch_norm=True)
    module(x)
    assert write_back(model, module) == ("m", "v")
    stored = {t.name: numpy_helper.to_array(t).tolist() for t in model.graph.initializer}
    assert stored == {"s": [1, 1], "b": [2, 2], "m": [2, 5], "v": [1, 9]}


def test_dropout_drops_on_request_only() -> None:
    nodes = [helper.make_node("Dropout", ["x", "r"], ["y"])]
    model = model_of(nodes, [("x", F32, ["N"])], [("y", F32, ["N"])], [("r", np.float32(0.25))])
    module, x = to_torch(model), torch.ones(4000)
    assert torch.equal(module(x), x)
    module.set_mode(dropout=True)
    dropped = module(x)
    assert 0.2 < float((dropped == 0).float().mean()) < 0.3
    assert float(dropped.max()) == pytest.approx(1 / 0.75)


def _branch(name, weight, seed):
    node = helper.make_node("MatMul", ["x", weight], [name])
    init = numpy_helper.from_array(values(3, 2, seed=seed), weight)
    out = helper.make_tensor_value_info(name, F32, None)
    return helper.make_graph([node], name, [], [out], [init])


def test_weights_inside_branches_train_and_go_back_to_their_own_branch() -> None:
    """Both branches call their weight ``w``; they are different weights."""
    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=_branch("a", "w", 0), else_branch=_branch("b", "w", 1)
    )
    model = model_of(
        [node], [("c", TensorProto.BOOL, []), ("x", F32, ["N", 3])], [("y", F32, ["N", 2])]
    )
    before = model.SerializeToString()
    module = to_torch(model)
    assert set(module.weights) == {"w", "w#2"}
    x = torch.from_numpy(values(4, 3, seed=3))
    first, second = (a.name == "then_branch" for a in model.graph.node[0].attribute)
    for c, name in ((first, "w"), (second, "w#2")):
        same_as_ort(model, {"c": np.array(c), "x": x.numpy()})
        grads = torch.autograd.grad(
            module(torch.tensor(c), x).sum(), list(module.weights.values()), allow_unused=True
        )
        assert [g is not None for g in grads] == [n == name for n in module.weights]
    with torch.no_grad():
        module.weights["w#2"].zero_()
    assert write_back(model, module) == ("w#2",)
    old = onnx.ModelProto.FromString(before).graph.node[0].attribute
    new = model.graph.node[0].attribute
    assert new[0] == old[0]
    assert not numpy_helper.to_array(new[1].g.initializer[0]).any()


def test_loop_and_scan_train_the_weights_they_capture() -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["h2"]),
            helper.make_node("Tanh", ["h2"], ["h_out"]),
            helper.make_node("Identity", ["go"], ["go_out"]),
            helper.make_node("ReduceSum", ["h_out"], ["s"], keepdims=0),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", F32, [1, 3]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h_out", F32, [1, 3]),
            helper.make_tensor_value_info("s", F32, []),
        ],
    )
    model = model_of(
        [helper.make_node("Loop", ["n", "", "x"], ["y", "sums"], body=body)],
        [("n", TensorProto.INT64, []), ("x", F32, [1, 3])],
        [("y", F32, [1, 3]), ("sums", F32, ["k"])],
        [("w", values(3, 3))],
    )
    x = values(1, 3, seed=2)
    same_as_ort(model, {"n": np.array(4), "x": x})
    module = to_torch(model)
    y, sums = module(torch.tensor(4), torch.from_numpy(x))
    (y.sum() + sums.sum()).backward()
    w = torch.tensor(values(3, 3), requires_grad=True)
    h, total = torch.from_numpy(x), torch.zeros(())
    for _ in range(4):
        h = torch.tanh(h @ w)
        total = total + h.sum()
    (h.sum() + total).backward()
    torch.testing.assert_close(module.weights["w"].grad, w.grad)


def test_local_functions_are_seen_through() -> None:
    function = helper.make_function(
        "mine", "Twice", ["a", "b"], ["c"],
        [helper.make_node("MatMul", ["a", "b"], ["t"]), helper.make_node("Add", ["t", "t"], ["c"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    node = helper.make_node("Twice", ["x", "w"], ["y"], domain="mine")
    model = model_of(
        [node], [("x", F32, ["N", 3])], [("y", F32, ["N", 2])], [("w", values(3, 2))],
        functions=[function], domains=["mine"],
    )  # fmt: skip
    assert list(to_torch(model).weights) == ["w"]
    same_as_ort(model, {"x": values(2, 3, seed=1)})


@pytest.mark.parametrize("opset", [9, 13, 17, 23])
def test_old_and_new_opsets_and_any_batch(opset: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"], axis=1),
    ]
    model = model_of(
        nodes, [("x", F32, ["N", 2, "H", "W"])], [("y", F32, ["N", 4])], [("w", values(4, 2, 3, 3))],
        opset=opset,
    )  # fmt: skip
    for batch, size in ((1, 5), (3, 8)):
        same_as_ort(model, {"x": values(batch, 2, size, size + 1, seed=batch)})


def test_write_back_changes_nothing_but_the_initializer() -> None:
    model = model_of(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1, name="gemm")],
        [("x", F32, ["N", 3])],
        [("y", F32, ["N", 2])],
        [("w", values(2, 3)), ("b", values(2))],
    )
    model.doc_string = "kept"
    model.graph.initializer[0].doc_string = "kept too"
    module, before = to_torch(model), model.SerializeToString()
    assert write_back(model, module) == ()
    assert model.SerializeToString() == before
    with torch.no_grad():
        module.weights["w"][0, 1] = 7.0
    assert write_back(model, module) == ("w",)
    assert numpy_helper.to_array(model.graph.initializer[0])[0, 1] == 7.0
    model.graph.initializer[0].raw_data = numpy_helper.from_array(values(2, 3)).raw_data
    assert model.SerializeToString() == before


def test_sparse_initializers_stay_sparse() -> None:
    dense = np.zeros((3, 4), np.float32)
    dense[0, 1], dense[2, 3] = 5.0, -1.0
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([5.0, -1.0], np.float32), "w"),
        numpy_helper.from_array(np.array([1, 11], np.int64), "w_at"),
        [3, 4],
    )
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", F32, ["N", 3])],
        [("y", F32, ["N", 4])],
    )
    model.graph.sparse_initializer.append(sparse)
    module = to_torch(model)
    torch.testing.assert_close(module(torch.eye(3)).detach(), torch.from_numpy(dense))
    with torch.no_grad():
        module.weights["w"][1, 0] = 2.0
    assert write_back(model, module) == ("w",)
    dense[1, 0] = 2.0
    torch.testing.assert_close(to_torch(model)(torch.eye(3)).detach(), torch.from_numpy(dense))


def test_quantized_weights_train_on_their_grid() -> None:
    codes = np.array([[3, -5], [127, 0]], np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0),
        helper.make_node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    inits = [("q", codes), ("s", np.array([0.5, 0.25], np.float32)), ("z", np.zeros(2, np.int8))]
    model = model_of(nodes, [("x", F32, ["N", 2])], [("y", F32, ["N", 2])], inits)
    module = to_torch(model)
    weight = module.weights["q"]
    torch.testing.assert_close(weight.detach(), torch.tensor([[1.5, -2.5], [31.75, 0.0]]))
    same_as_ort(model, {"x": values(3, 2)})
    module(torch.ones(1, 2)).sum().backward()
    assert weight.grad.tolist() == [[1, 1], [1, 1]]
    with torch.no_grad():
        weight.copy_(torch.tensor([[1.7, -2.8], [40.0, 0.1]]))
    assert module(torch.eye(2)).tolist() == [[1.5, 31.75], [-3.0, 0.0]]
    assert write_back(model, module) == ("q",)
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == [[3, -6], [127, 0]]


def test_gradients_pass_quantized_activations() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("QuantizeLinear", ["h", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    inits = [("w", values(2, 2)), ("s", np.float32(0.1)), ("z", np.uint8(128))]
    model = model_of(nodes, [("x", F32, ["N", 2])], [("y", F32, ["N", 2])], inits)
    same_as_ort(model, {"x": values(4, 2, seed=3)})
    module = to_torch(model)
    module(torch.ones(1, 2)).sum().backward()
    assert module.weights["w"].grad.tolist() == [[1, 1], [1, 1]]
    # Outside the range of the grid nothing moves, so no gradient passes.
    module.zero_grad()
    module(torch.full((1, 2), 1e4)).sum().backward()
    assert module.weights["w"].grad.tolist() == [[0, 0], [0, 0]]


def test_an_operator_that_cannot_run_is_named_before_anything_runs() -> None:
    nodes = [
        helper.make_node("StringConcat", ["x", "x"], ["y"]),
    ]
    model = model_of(
        nodes, [("x", TensorProto.STRING, ["N"])], [("y", TensorProto.STRING, ["N"])], opset=20
    )
    with pytest.raises(UnsupportedError, match="StringConcat"):
        to_torch(model)
    cast = model_of(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING, name="c")],
        [("x", F32, ["N"])],
        [("y", TensorProto.STRING, ["N"])],
    )
    with pytest.raises(UnsupportedError, match="Cast 'c': conversion to STRING"):
        to_torch(cast)


def test_wrong_inputs_are_said_in_a_sentence() -> None:
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")],
        [("x", F32, ["N", 3])],
        [("y", F32, ["N", 2])],
        [("w", values(3, 2))],
    )
    module = to_torch(model)
    with pytest.raises(DataError, match="inputs are"):
        module({"z": torch.ones(1, 3)})
    with pytest.raises(DataError, match=r"'x' is torch.float64"):
        module(torch.ones(1, 3).double())
    with pytest.raises(ModelError, match="cannot run MatMul 'm'"):
        module(torch.ones(1, 4))


def test_the_documented_list_is_what_is_registered() -> None:
    page = Path(__file__).parents[3] / "docs" / "bridge.md"
    assert page.read_text() == listing()
    names = {name for domain, name in supported() if not domain}
    assert {"Conv", "LSTM", "Attention", "Resize", "If", "DequantizeLinear"} <= names
    assert ("com.microsoft", "FusedMatMul") in supported()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 1, 1, 0]])
def test_channels_that_masks_empty_are_left_out_with_the_same_result(bias: bool, pads) -> None:
    """Outputs and the gradients of what is kept stay; what is masked gets none."""
    first, second = values(6, 3, 3, 3), values(5, 6, 3, 3, seed=1)
    second[[0, 3]], second[:, [1, 2]] = 0, 0
    constants = [("first", first), ("second", second)]
    constants += [("b1", values(6, seed=2)), ("b2", values(5, seed=3))] if bias else []
    names = ("b1", "b2") if bias else ()
    nodes = [
        helper.make_node("Conv", ["x", "first", *names[:1]], ["h"], pads=pads),
        helper.make_node("Conv", ["h", "second", *names[1:]], ["y"], strides=[2, 1]),
    ]
    shapes = (["n", 3, 9, 8], ["n", 5, None, None])
    model = model_of(nodes, [("x", F32, shapes[0])], [("y", F32, shapes[1])], constants)
    x = torch.from_numpy(values(4, 3, 9, 8, seed=4))
    results = []
    for skips in (False, True):
        module = to_torch(model)
        kept = {name: module.weights[name] for name in ("first", "second")}
        masks = Masks(kept, keep_zeros=True)
        live = masks.live_channels()
        assert list(live) == ["second"]
        assert live["second"].outputs.tolist() == [1, 2, 4]
        assert live["second"].inputs.tolist() == [0, 3, 4, 5]
        module.mode.live = live if skips else {}
        y = module(x)
        y.square().sum().backward()
        masks.mask_gradients()
        results.append([y.detach(), *(w.grad for w in module.weights.values())])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)
