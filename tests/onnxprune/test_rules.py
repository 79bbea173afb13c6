"""Rules of a recipe: what they mean, what they refuse, and that every command honours them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api
from onnxprune.errors import RecipeError
from onnxprune.model_io import load_model
from onnxprune.recipe import Recipe, load_recipe, read_settings
from onnxprune.rules import Ruled, apply_rules
from passes.methods import METHODS
from passes.patterns import parse_pattern
from passes.weights import Weight, collect_weights

NODES = ("/layer1/conv", "/layer2/conv", "/head/fc")


def weight_of(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 0.3


def make_net(path: Path) -> Path:
    """Two convolutions of 8 channels and a Gemm; nodes :data:`NODES`, weights ``w0`` to ``w2``."""
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], name=NODES[0], pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["a0"]),
        helper.make_node("Conv", ["a0", "w1"], ["c1"], name=NODES[1], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["a1"]),
        helper.make_node("GlobalAveragePool", ["a1"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["y"], name=NODES[2], transB=1),
    ]
    arrays = {
        "w0": weight_of((8, 4, 3, 3), 0),
        "w1": weight_of((8, 8, 3, 3), 1),
        "w2": weight_of((4, 8), 2),
    }
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return make_net(tmp_path / "net.onnx")


@pytest.fixture
def net_data(net: Path, tmp_path: Path) -> Path:
    from onnxprune.runtime import Session

    x = np.random.default_rng(7).standard_normal((300, 4, 6, 6)).astype(np.float32)
    labels = Session(net).run({"x": x})[0].argmax(axis=1)
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    return tmp_path / "data.npz"


def ruled(path: Path, *rules: dict, **fields: object) -> Ruled:
    recipe = load_recipe(None, {"rules": list(rules)} | fields)
    return apply_rules(collect_weights(load_model(path)), recipe)


def sparsity_of(path: Path) -> dict[str, float]:
    return {w.name: 1 - w.nonzeros() / w.elements for w in weights_of(path)}


def weights_of(path: Path) -> tuple[Weight, ...]:
    return collect_weights(load_model(path)).weights


def test_the_last_rule_that_says_something_decides_field_by_field(net: Path) -> None:
    settled = ruled(
        net,
        {"sparsity": 0.5, "pattern": "2:4"},
        {"match": "/layer*", "sparsity": 0.75},
        {"match": "w0", "pattern": "unstructured"},
    )
    assert settled.keep == {"w0": 72, "w1": 144, "w2": 16}
    assert {name: p.name for name, p in settled.patterns.items()} == {
        "w0": "unstructured",
        "w1": "2:4",
        "w2": "2:4",
    }
    assert not settled.free


def test_names_match_nodes_and_weights_and_operators_narrow_them(net: Path) -> None:
    assert ruled(net, {"match": "/layer?/conv", "sparsity": 0.5}).keep.keys() == {"w0", "w1"}
    assert ruled(net, {"match": "w[12]", "sparsity": 0.5}).keep.keys() == {"w1", "w2"}
    assert ruled(net, {"op_types": ["Gemm"], "sparsity": 0.5}).keep.keys() == {"w2"}
    both = {"match": "*1*", "op_types": ["Conv", "Gemm"], "sparsity": 0.5}
    assert ruled(net, both).keep.keys() == {"w0", "w1"}  # /layer1/conv reads w0


def test_a_name_with_brackets_matches_itself(tmp_path: Path) -> None:
    model = onnx.load(make_net(tmp_path / "net.onnx"))
    model.graph.node[0].name = "block[0]"
    onnx.save(model, tmp_path / "net.onnx")
    assert ruled(tmp_path / "net.onnx", {"match": "block[0]", "sparsity": 0.5}).keep.keys() == {
        "w0"
    }


def test_what_is_excluded_says_by_which_rule_and_a_later_rule_takes_it_back(net: Path) -> None:
    settled = ruled(net, {"exclude": True}, {"match": "/head/*", "exclude": False})
    assert [w.name for w in settled.collection.weights] == ["w2"]
    reasons = {s.name: s.reason for s in settled.collection.skipped}
    assert reasons["w0"] == "excluded on request (rules.0)"


def test_the_default_pattern_holds_where_no_rule_says_one(net: Path) -> None:
    settled = ruled(net, {"match": "w0", "pattern": "unstructured"}, **{"prune.pattern": "4x1"})
    assert [settled.patterns[n].name for n in ("w0", "w1", "w2")] == ["unstructured", "4x1", "4x1"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"match": "/layr1/*", "sparsity": 0.5},
            r"rules\.0: '/layr1/\*' matches no node.*near are '/layer1/conv'",
        ),
        ({"match": "zzz", "exclude": True}, "see `onnxprune inspect`"),
        (
            {"match": "/head/*", "op_types": ["Conv"], "sparsity": 0.5},
            r"rules\.0: what '/head/\*' matches is read by Gemm, not by Conv",
        ),
        (
            {"pattern": "2:4", "sparsity": 0.25},
            r"rules\.0: a sparsity of 0\.25 is not to be had for 'w0', whose pattern 2:4 leaves at least 0\.5",
        ),
    ],
)
def test_rules_that_cannot_hold_are_refused(net: Path, rule: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ruled(net, rule)


def test_a_rule_for_what_cannot_be_pruned_says_why(mlp: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"matches only what cannot be pruned; 'fc0\.bias': a bias"
    ):
        ruled(mlp, {"match": "*.bias", "sparsity": 0.5})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{match: a, sparsty: 1}]", r"rules\.0\.sparsty: there is no such field; did you mean sparsity"),
        ("rules: [{sparsity: 0.5}, {sparsity: 2}]", r"rules\.1\.sparsity: .*less than or equal to 1 \(found 2\)"),
        ("rules: [{sparsity: .nan}]", r"rules\.0\.sparsity: "),
        ("rules: [{pattern: 9:4}]", r"rules\.0\.pattern: pattern '9:4' is not understood"),
        ("rules: [{match: a}]", r"rules\.0: it says nothing"),
        ("rules: [{op_types: [], sparsity: 1}]", r"rules\.0\.op_types: "),
        ("rules: [{match: '', sparsity: 1}]", r"rules\.0\.match: "),
        ("rules: {a: 1}", r"rules: must be a list"),
        ("prune: {pattern: round}", r"prune\.pattern: pattern 'round' is not understood"),
    ],
)  # fmt: skip
def test_wrong_rules_are_named_by_their_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, {})


def test_patterns_need_no_quotes_and_numbers_are_those_of_today(tmp_path: Path) -> None:
    # YAML 1.1 reads 2:4 as 124 and 1e-3 as a text.
    path = tmp_path / "recipe.yaml"
    path.write_text("rules: [{pattern: 2:4, sparsity: 5e-1}]\nmax_drop: 1e-3\nseed: 12\n")
    recipe = load_recipe(path, {})
    assert recipe.rules[0].pattern == "2:4"
    assert (recipe.rules[0].sparsity, recipe.max_drop, recipe.seed) == (0.5, 0.001, 12)
    path.write_text(recipe.to_yaml())
    assert load_recipe(path, {}) == recipe


def test_settings_reach_into_rules(tmp_path: Path) -> None:
    recipe = load_recipe(
        None, read_settings(["rules=[{match: a, pattern: 2:4}]", "rules.0.sparsity=0.75"])
    )
    assert recipe.rules[0].model_dump() == {
        "match": "a",
        "op_types": None,
        "sparsity": 0.75,
        "pattern": "2:4",
        "exclude": None,
    }
    for setting in ("rules.3.sparsity=1", "rules.x.sparsity=1"):
        with pytest.raises(RecipeError, match="is no place in the list; it has 0 to 0"):
            load_recipe(None, read_settings(["rules=[{sparsity: 1}]", setting]))


def test_prune_fixes_what_rules_fix_and_shares_the_rest(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    recipe = load_recipe(None, {"rules": [{"match": "/layer1/*", "sparsity": 0.9}]})
    report = api.prune(net, out, sparsity=0.6, recipe=recipe)
    assert report.totals is not None
    assert report.totals.sparsity == pytest.approx(0.6, abs=1e-3)
    got = sparsity_of(out)
    assert got["w0"] == pytest.approx(0.9, abs=2e-3)
    assert got["w1"] == pytest.approx(got["w2"], abs=0.02)
    api.prune(net, out, recipe=recipe)
    assert sparsity_of(out) == pytest.approx({"w0": 0.9, "w1": 0, "w2": 0}, abs=2e-3)


def test_a_total_that_rules_make_impossible_is_refused(net: Path, tmp_path: Path) -> None:
    recipe = load_recipe(None, {"rules": [{"match": "w1", "sparsity": 0.9}]})
    out = tmp_path / "out.onnx"
    with pytest.raises(RecipeError, match=r"it comes to 0\.5781 to 0\.9353"):
        api.prune(net, out, sparsity=0.5, recipe=recipe)
    with pytest.raises(RecipeError, match=r"rules with one"):
        api.prune(net, out)
    assert not out.exists()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_each_weight_its_own_pattern(
    net: Path, net_data: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "out.onnx"
    rules = [
        {"match": "w0", "pattern": "2:4"},
        {"match": "w1", "pattern": "4x1", "sparsity": 0.5},
        {"match": "w2", "exclude": True},
    ]
    recipe = load_recipe(None, {"rules": rules})
    report = api.prune(net, out, data=str(net_data), method=method, recipe=recipe, threads=1)
    assert {w.name: w.pattern for w in report.weights or ()} == {"w0": "2:4", "w1": "4x1"}
    weights = {w.name: w for w in weights_of(out)}
    for name, text, least in (("w0", "2:4", 0.5), ("w1", "4x1", 0.5)):
        mask = weights[name].matrices() != 0
        assert parse_pattern(text).fitted(9).obeys(mask), name
        assert 1 - mask.mean() == pytest.approx(least, abs=0.01)
        assert not parse_pattern("2:4" if text == "4x1" else "4x1").fitted(9).obeys(mask)
    assert weights["w2"].array().tobytes() == weight_of((4, 8), 2).tobytes()


def test_patterns_without_data_are_those_of_magnitude(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    recipe = load_recipe(None, {"rules": [{"match": "w1", "pattern": "2:4"}]})
    api.prune(net, out, recipe=recipe)
    dense = weight_of((8, 8, 3, 3), 1)
    kept = next(w for w in weights_of(out) if w.name == "w1").array()
    groups = np.abs(dense).reshape(8, 2, 4, 9)  # four input channels at one place of the kernel
    least = np.sort(groups, axis=2)[:, :, 2:3]
    expected = np.where(groups >= least, dense.reshape(8, 2, 4, 9), 0).reshape(dense.shape)
    np.testing.assert_array_equal(kept, expected)


def test_compress_searches_only_what_no_rule_fixes(
    net: Path, net_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    rules = [
        {"match": "/layer1/*", "sparsity": 0.5},
        {"match": "/layer2/*", "pattern": "2:4"},
        {"op_types": ["Gemm"], "exclude": True},
    ]
    recipe = load_recipe(None, {"rules": rules, "search.trials": 12, "max_drop": 0.9})
    report = api.compress(net, str(net_data), run, recipe)
    assert {s.name for s in report.skipped or ()} >= {"w2"}
    lines = map(json.loads, (run / "journal.jsonl").read_text().splitlines())
    trials = [line for line in lines if "levels" in line]
    assert {trial["levels"][0] for trial in trials} == {0}, "a fixed level is not searched"
    assert len({trial["levels"][1] for trial in trials}) > 3
    weights = {w.name: w for w in weights_of(run / "model.onnx")}
    assert weights["w0"].nonzeros() == 144
    assert parse_pattern("2:4").fitted(9).obeys(weights["w1"].matrices() != 0)
    assert 0.5 < 1 - weights["w1"].nonzeros() / weights["w1"].elements < 1
    assert {w.name: w.pattern for w in report.weights or ()} == {"w0": "unstructured", "w1": "2:4"}
    packed = [w.name for w in weights_of(run / "model.packed.onnx")]
    assert packed == ["w2"], "what is left out is stored as it came"
    again = tmp_path / "again"
    api.compress(net, str(net_data), again, load_recipe(run / "recipe.yaml", {}))
    for name in ("model.onnx", "model.packed.onnx", "weights.swb", "plan.json", "journal.jsonl"):
        assert (again / name).read_bytes() == (run / name).read_bytes(), name


@pytest.mark.parametrize("target", [None, "3kB", "3kB:blob", "500cycles"])
def test_where_nothing_keeps_the_limit_rules_still_hold(
    net: Path, net_data: Path, tmp_path: Path, target: str | None
) -> None:
    rules = [{"match": "w0", "sparsity": 1.0}, {"match": "w1", "pattern": "2:4"}]
    recipe = load_recipe(
        None, {"rules": rules, "search.trials": 2, "max_drop": 0.0, "target": target}
    )
    report = api.search(net, str(net_data), tmp_path / "run", recipe)
    assert not report.succeeded
    assert any("that no rule of the recipe takes away" in w for w in report.warnings)
    assert sparsity_of(tmp_path / "run" / "model.onnx") == {"w0": 1.0, "w1": 0.5, "w2": 0.0}


def test_finetune_leaves_out_what_rules_exclude_and_refuses_what_it_does_not_do(
    net: Path, net_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "out.onnx"
    brief = {
        "finetune.phases.sparsify": 1,
        "finetune.phases.prune": 1,
        "finetune.phases.recover": 0,
        "target": "2x",
    }
    recipe = load_recipe(None, brief | {"rules": [{"match": "w2", "exclude": True}]})
    report = api.finetune(net, str(net_data), out, recipe, device="cpu", threads=1)
    assert [w.name for w in report.weights or ()] == ["w0", "w1"]
    assert sparsity_of(out)["w2"] == 0
    recipe = load_recipe(None, brief | {"rules": [{"match": "w2", "sparsity": 0.5}]})
    with pytest.raises(RecipeError, match="not by the sparsity of rules"):
        api.finetune(net, str(net_data), out, recipe, device="cpu", threads=1)


def test_prune_takes_the_method_that_a_recipe_names(
    net: Path, net_data: Path, tmp_path: Path
) -> None:
    """The default of ``search`` needs data, that of ``prune`` does not; what a recipe says holds for both."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("prune: {method: wanda}\nrules:\n- {pattern: 2:4}\n")
    named = load_recipe(recipe, {})
    report = api.prune(net, data=str(net_data), recipe=named)
    assert report.methods["saliency"] == "wanda"
    assert api.prune(net, recipe=load_recipe(None, {"rules": [{"pattern": "2:4"}]})).succeeded
    assert api.prune(net, method="magnitude", recipe=named).methods["saliency"] == "magnitude"
    command = [
        sys.executable,
        "-m",
        "onnxprune",
        "prune",
        net,
        "-o",
        tmp_path / "out.onnx",
        "--json",
    ]
    told = [*command, "--recipe", recipe, "--data", net_data]
    for extra, method in (([], "wanda"), (["--method", "obs"], "obs")):
        done = subprocess.run([*told, *extra], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["methods"]["saliency"] == method


def test_the_command_line_takes_recipe_and_settings(net: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("rules:\n- {match: /layer1/*, sparsity: 0.5}\n")
    out = tmp_path / "out.onnx"
    command = [sys.executable, "-m", "onnxprune", "prune", net, "-o", out, "--json"]
    command += ["--recipe", recipe, "--set", "rules.0.sparsity=0.75"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sparsity_of(out) == {"w0": 0.75, "w1": 0, "w2": 0}
    assert json.loads(done.stdout)["totals"]["nonzeros"] == 72 + 576 + 32
    done = subprocess.run(
        [*command, "--set", "rules.0.match=/lair1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("onnxprune: rules.0: '/lair1' matches no node")


def test_recurrent_and_stacked_weights_have_no_kernel(shared_models: Path) -> None:
    """Shapes of three axes that are no convolution: a group of 2:4 runs over their columns."""
    weights = {
        w.name: w
        for w in weights_of(shared_models / "dtln_1_lstm.onnx")
        if len(w.layout.shape) == 3
    }
    assert weights
    for weight in weights.values():
        assert weight.kernel == (), weight.name
        pattern = parse_pattern("2:4").fitted(weight.taps)
        groups, rows, columns = weight.layout.matrix_shape
        assert groups * pattern.most(rows, columns) <= 0.52 * weight.elements


def test_inspect_shows_the_names_that_rules_take(net: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnxprune", "inspect", net],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in (*NODES, "w0", "w1", "w2"):
        assert name in done.stdout


def test_a_default_recipe_rules_nothing(net: Path) -> None:
    settled = apply_rules(collect_weights(load_model(net)), Recipe())
    assert (dict(settled.keep), settled.structured, len(settled.free)) == ({}, False, 3)
