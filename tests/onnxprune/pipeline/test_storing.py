"""Searched fields of encode steps: counted on the model that was made, without trials."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from onnxprune import api
from onnxprune.errors import RecipeError
from onnxprune.pipeline.storing import unit_of
from onnxprune.recipe import load_recipe

CHUNKS, ENCODINGS = [0, 16, 256], ["bitmask", "rice"]


def recipe(*, cycles: bool = True, **encode: Any) -> Any:
    last = [{"step": "estimate", "decoder_lanes": 4}] if cycles else []
    return load_recipe(
        None,
        {
            "steps": [
                {"step": "prune", "sparsity": 0.9, "method": "magnitude"},
                {"step": "encode"} | encode,
                *last,
            ]
        },
    )


@pytest.mark.parametrize("cycles", [True, False])
def test_the_cheapest_of_all_choices_is_taken(
    mlp: Path, mlp_data: Path, tmp_path: Path, *, cycles: bool
) -> None:
    marks = {"chunk": {"search": CHUNKS}, "encoding": {"search": ENCODINGS}}
    report = api.compress(mlp, mlp_data, tmp_path / "run", recipe(cycles=cycles, **marks))
    assert report.totals is not None
    assert report.methods is not None

    def cost(totals: Any) -> float:
        return totals.fetch_cycles if cycles else sum(w.encoded_bytes for w in weights(totals))

    def weights(totals: Any) -> Any:
        return next(one.weights for one in made.values() if one.totals is totals)

    made = {
        (chunk, encoding): api.compress(
            mlp, mlp_data, tmp_path / f"{chunk}{encoding}", recipe(cycles=cycles, chunk=chunk, encoding=encoding)
        )
        for chunk, encoding in product(CHUNKS, ENCODINGS)
    }  # fmt: skip
    costs = {key: cost(one.totals) for key, one in made.items()}
    chosen = min(costs, key=lambda key: costs[key])
    assert len(set(costs.values())) > 1
    blob = (tmp_path / "run" / "weights.swb").read_bytes()
    assert blob == (tmp_path / f"{chosen[0]}{chosen[1]}" / "weights.swb").read_bytes()
    assert report.methods["02-encode: chunk"] == f"{chosen[0]}, of 3"


def test_it_is_not_done_again_unless_the_choices_change(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    first = recipe(chunk={"search": CHUNKS})
    api.compress(mlp, mlp_data, tmp_path / "run", first)
    again = api.compress(mlp, mlp_data, tmp_path / "run", first, resume=True)
    assert [step.done for step in again.steps] == ["before"] * 3
    more = recipe(chunk={"search": [*CHUNKS, 64]})
    changed = api.compress(mlp, mlp_data, tmp_path / "run", more, resume=True)
    assert [step.done for step in changed.steps][:2] == ["before", "now"]
    found = json.loads((tmp_path / "run" / "report.json").read_text())
    assert found["methods"]["02-encode: chunk"].endswith("of 4")


def test_what_cannot_be_stored_is_left_out_or_refused(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    alone = {"encoding": {"search": ["auto", "rice"]}, "decoder": ["rice"]}
    report = api.compress(mlp, mlp_data, tmp_path / "run", recipe(**alone))
    assert report.methods is not None
    assert report.methods["02-encode: encoding"] == "auto, of 2"
    with pytest.raises(RecipeError, match="there is no encoding 'ric'"):
        recipe(encoding={"search": ["auto", "ric"]})


def test_cycles_count_where_they_are_estimated() -> None:
    assert unit_of(recipe(), 1) == "cycles"
    assert unit_of(recipe(cycles=False), 1) == "blob_bytes"


def test_names_of_weights_may_have_dots() -> None:
    steps = [{"step": "sparsify", "penalty": {"by_weight": {"fc0.weight": {"search": [0.5, 2.0]}}}}]
    marked = load_recipe(None, {"steps": steps})
    assert marked.searched == ("steps.0.penalty.by_weight.fc0.weight",)
    given = marked.with_values({marked.searched[0]: 2.0})
    assert given.steps[0].penalty.by_weight == {"fc0.weight": 2.0}  # type: ignore[union-attr]
