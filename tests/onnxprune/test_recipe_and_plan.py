from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxprune.errors import RecipeError
from onnxprune.model_io import load_model
from onnxprune.plan import Plan, load_plan
from onnxprune.recipe import Recipe, load_recipe, parse_target, read_settings, recipe_schema
from onnxprune.selection import select
from passes.weights import collect_weights


def test_a_resolved_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    recipe = load_recipe(
        None, {"max_drop": 0.02, "search.trials": 7, "prune.nodes_to_exclude": ["a"]}
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(path, {}) == recipe
    assert recipe.search.trials == 7


def test_options_go_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("search: {trials: 5}\nseed: 3\n")
    recipe = load_recipe(path, {"search.trials": 9, "seed": None})
    assert (recipe.search.trials, recipe.seed) == (9, 3)


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("")
    assert load_recipe(path, {}) == Recipe()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("search: {trails: 5}", r"recipe\.yaml': search\.trails: there is no such field"),
        ("max_drop: 2", r"max_drop: .*less than or equal to 1 \(found 2\)"),
        ("max_drop: .nan", r"max_drop: "),
        ("search: {controller: magic}", r"search\.controller: .*'bayes'"),
        ("data: {calibration: 0.6, search: 0.5}", "held-out part"),
        ("- 1", "must be a mapping"),
        ("a: [", "not valid YAML"),
        ("target: 10y", "target '10y' is not understood"),
        ("search: 5", "search: "),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, {})


def test_an_option_over_a_section_that_is_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("search: 5")
    with pytest.raises(RecipeError, match="search"):
        load_recipe(path, {"search.trials": 9})


@pytest.mark.parametrize(
    ("text", "unit", "limit"),
    [
        ("10x", "elements", 10),
        ("200kB", "packed_bytes", 200_000),
        ("1.5MB:blob", "blob_bytes", 1_500_000),
        ("500000cycles", "cycles", 500_000),
    ],
)
def test_targets(text: str, unit: str, limit: float) -> None:
    target = parse_target(text)
    assert (target.unit, target.limit) == (unit, limit)
    better = limit + 1 if unit == "elements" else limit - 1
    worse = limit - 1 if unit == "elements" else limit + 1
    assert target.met(limit)
    assert target.met(better)
    assert not target.met(worse)


@pytest.mark.parametrize("text", ["", "x", "10", "-3x", "10x:blob", "5cycles:blob", "0kB", "nanx"])
def test_targets_that_make_no_sense(text: str) -> None:
    with pytest.raises(RecipeError, match="is not understood"):
        parse_target(text)


def test_plans_name_weights_or_nodes(mlp: Path, tmp_path: Path) -> None:
    weights = collect_weights(load_model(mlp)).weights
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"sparsity": {"fc0.weight": 0.5, "/fc1/Gemm": 0.75}}))
    plan = load_plan(path, weights)
    assert plan.keep == {"fc0.weight": 96, "fc1.weight": 16}
    path.write_text(Plan(plan.keep, plan.elements).to_json())
    assert load_plan(path, weights) == plan


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"sparsity": {"fc9.weight": 0.5}}', "did you mean 'fc1.weight' or 'fc0.weight'"),
        ('{"sparsity": {"fc0.weight": 1.5}}', "between 0 and 1, found 1.5"),
        ('{"sparsity": {"fc0.weight": NaN}}', "between 0 and 1, found nan"),
        ('{"sparsity": {"fc0.weight": "a"}}', "between 0 and 1, found 'a'"),
        ('{"sparsity": 1}', "must hold an object"),
        ("[]", "must hold an object"),
        ("nope", "is not JSON"),
    ],
)
def test_wrong_plans_are_named(mlp: Path, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(RecipeError, match=message):
        load_plan(path, collect_weights(load_model(mlp)).weights)


def test_selection_moves_weights_to_skipped_with_the_reason(mlp: Path) -> None:
    collection = collect_weights(load_model(mlp))
    left = select(collection, ["/fc0/Gemm"])
    assert [weight.name for weight in left.weights] == ["fc1.weight"]
    assert "excluded on request" in left.skipped[-1].reason
    assert select(collection, (), ["Gemm"]).weights == collection.weights
    with pytest.raises(RecipeError, match="names 'Conv'"):
        select(collection, (), ["Conv"])
    with pytest.raises(RecipeError, match="did you mean '/fc0/Gemm'"):
        select(collection, ["/fc0/gemm"])


def test_settings_go_over_everything(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("search: {trials: 7}\nmax_drop: 0.02\n")
    settings = read_settings(["search.trials=50", "prune.nodes_to_exclude=[a, b]", "target=10x"])
    recipe = load_recipe(path, {"max_drop": 0.03} | settings)
    assert (recipe.search.trials, recipe.max_drop, recipe.target) == (50, 0.03, "10x")
    assert recipe.prune.nodes_to_exclude == ("a", "b")
    for text in ("search.trials", "=3", "a=[1"):
        with pytest.raises(RecipeError, match=r"write section\.field=value"):
            read_settings([text])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["search.trails=5"], r"search\.trails: there is no such field; did you mean trials\?"),
        (["serch.trials=5"], "serch: there is no such field; did you mean search"),
        (["encode.zzz=5"], r"encode\.zzz: there is no such field; known are encoding"),
        (
            ["encode.encoding=zip"],
            r"encode: there is no encoding 'zip'; known are auto, auto-cycles, ",
        ),
        (["encode.decoder=[zip]"], r"encode: there is no encoding 'zip'; known are dense, "),
        (
            ["encode.encoding=rice", "encode.decoder=[bitmask, csr]"],
            r"the decoder knows bitmask, csr, not 'rice'; take one of them, or auto",
        ),
        (["encode.align=24"], r"encode: .*a power of two up to 65536, found 24"),
        (["encode.chunk=-1"], r"encode\.chunk: .*greater than or equal to 0 \(found -1\)"),
        (["estimate.decoder_lanes=0"], r"estimate\.decoder_lanes: .*equal to 1 \(found 0\)"),
        (["estimate.bufers=1"], r"estimate\.bufers: there is no such field; did you mean buffers"),
        (["search.trials=many"], r"search\.trials: .*integer.*found 'many'"),
    ],
)
def test_wrong_settings_name_what_was_meant(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(None, read_settings(settings))


def test_the_committed_schema_is_that_of_the_code() -> None:
    schema = Path(__file__).parents[2] / "docs" / "recipe.schema.json"
    assert schema.read_text(encoding="utf-8") == recipe_schema()
