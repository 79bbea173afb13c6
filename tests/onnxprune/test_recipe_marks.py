"""Fields of a recipe that a search decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import RecipeError
from onnxprune.recipe import load_recipe


def test_marks_and_the_list_of_what_varies_say_the_same() -> None:
    marked = load_recipe(
        None,
        {
            "prune.method": {"search": ["obs", "wanda"]},
            "prune.damping": {"search": [0.001, 0.1, "log"]},
        },
    )
    dampings = [0.001, 0.00316228, 0.01, 0.0316228, 0.1]
    vary = {"prune.method": ["obs", "wanda"], "prune.damping": dampings}
    listed = load_recipe(None, {"search.vary": vary, "prune.method": "obs", "prune.damping": 0.001})
    assert marked == listed
    variants = marked.variants()
    assert [v.prune.method for v in variants] == ["obs"] * 5 + ["wanda"] * 5
    assert [v.prune.damping for v in variants] == dampings * 2


def test_a_resolved_recipe_reads_back(tmp_path: Path) -> None:
    recipe = load_recipe(None, {"prune.pattern": {"search": ["unstructured", "2:4"]}})
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(path, {}) == recipe
    assert [v.prune.pattern for v in recipe.variants()] == ["unstructured", "2:4"]


def test_nothing_varies_by_itself() -> None:
    recipe = load_recipe(None, {})
    assert recipe.variants() == (recipe,)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"prune.damping": {"search": [0.1, 0.01, "log"]}}, r"low below high"),
        ({"prune.damping": {"search": [0, 0.01, "log"]}}, r"begins above 0, found 0"),
        ({"prune.damping": {"search": ["a", "b", "log"]}}, r"low below high"),
        ({"prune.damping": {"search": [0.1]}}, r"prune.damping: a searched field is written"),
        ({"prune.damping": {"find": [0.1, 1]}}, r"prune.damping: a searched field is written"),
        ({"prune.damping": {"search": [0.1, 99]}}, r"99"),
        ({"prune.method": {"search": ["obs", "best"]}}, r"best"),
        ({"prune.method": {"search": ["obs", "obs"]}}, r"lists a value twice"),
        ({"prune.pattern": {"search": ["2:4", "4:2"]}}, r"4:2"),
        ({"search.vary": {"prune.nodes": ["a", "b"]}}, r"'prune.nodes' cannot be searched"),
        ({"encode.chunk": {"search": [0, 64]}}, r"encode.chunk"),
    ],
)
def test_marks_that_cannot_be_are_refused(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        load_recipe(None, fields)
