"""Steps as a recipe describes them: what is refused, what is inherited, what is written back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import RecipeError
from onnxprune.pipeline.steps import PruneStep, RecoverStep
from onnxprune.recipe import SHIPPED, Recipe, load_recipe

NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def steps(*described: dict[str, Any], **fields: Any) -> Recipe:
    return load_recipe(None, {**fields, "steps": list(described)})


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        ([{"step": "estimate"}], "steps.0: estimate needs the blob"),
        (
            [{"step": "encode"}, {"step": "shrink"}, {"step": "estimate"}],
            "steps.2: estimate needs the blob of the model as it is then",
        ),
        ([{"step": "prune", "sparsity": 0.5}], "put a calibrate step before it"),
        (
            [{"step": "prune", "method": "magnitude", "allocation": "owl", "sparsity": 0.5}],
            "put a calibrate step before it",
        ),
        ([{"step": "prune", "gradual": {"passes": 3}}], "give it a sparsity or a target"),
        (
            [{"step": "prune", "method": "magnitude", "sparsity": 0.5, "target": "3x"}],
            "give one of sparsity and target",
        ),
        (
            [{"step": "prune", "method": "obs", "sparsity": 0.5, "gradual": {}}],
            "method belongs to pruning in one shot",
        ),
        ([{"step": "prun"}], "there is no step 'prun'; did you mean prune?"),
        ([{"step": "recover", "pases": 3}], "did you mean passes?"),
        ([{"passes": 3}], "say which step it is"),
        ([{"step": "recover", "passes": 0}], "steps.0.recover.passes"),
        (["verify"], "steps.0: must be a mapping of fields"),
        (
            [{"step": "prune", "method": "magnitude", "target": "3y"}],
            "target '3y' is not understood",
        ),
        ([{"step": "encode", "encoding": "zip"}], "there is no encoding 'zip'"),
    ],
)
def test_what_cannot_work_is_refused_when_the_recipe_is_read(
    described: list[Any], sentence: str
) -> None:
    with pytest.raises(RecipeError, match=sentence.replace("(", r"\(")):
        load_recipe(None, {"steps": described})


@pytest.mark.parametrize(
    "recipe",
    [
        "steps: [{step: pack, values: int3}]",
        "steps: [{step: encode}, {step: estimate, memory: nowhere}]",
        "steps: [{step: estimate}]",
    ],
)
def test_bad_steps_end_in_one_sentence_before_anything_is_written(
    mlp: Path, mlp_data: Path, tmp_path: Path, recipe: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe)
    command = [sys.executable, "-m", "onnxprune", "compress", mlp, "--data", mlp_data]
    done = subprocess.run(
        [*command, "-o", tmp_path / "run", "--recipe", tmp_path / "recipe.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_step_takes_what_it_leaves_open_from_the_section_of_its_name() -> None:
    recipe = steps(
        {"step": "calibrate"},
        {"step": "prune", "damping": 0.5},
        {"step": "encode"},
        {"step": "estimate", "decoder_lanes": 4},
        **{"prune.method": "exact", "prune.damping": 0.2, "estimate.memory": "hbm2"},
    )
    prune, estimate = recipe.steps[1], recipe.steps[3]
    assert isinstance(prune, PruneStep)
    assert (prune.method, prune.damping) == ("exact", 0.5)
    assert (estimate.memory, estimate.decoder_lanes) == ("hbm2", 4)
    trained = steps({"step": "prune", "gradual": {}, "sparsity": 0.5}, **{"prune.method": "exact"})
    assert trained.steps[0].gradual is not None  # a method of one shot is no reason to refuse it


@pytest.mark.parametrize("name", NAMES)
def test_recipes_that_are_shipped_are_found_by_name_and_read_back_as_written(
    name: str, tmp_path: Path
) -> None:
    recipe = load_recipe(Path(name), {})
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "again.yaml", {}) == recipe
    assert recipe.steps


def test_a_file_goes_before_a_recipe_that_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l-half").write_text("seed: 5\n")
    assert load_recipe(Path("l-half"), {}) == Recipe(seed=5)


def test_a_step_of_training_is_one_phase_of_finetune() -> None:
    step = RecoverStep(step="recover", passes=7, patience=2)
    settings = step.settings()
    assert settings.phases.model_dump() == {"sparsify": 0, "prune": 0, "recover": 7}
    assert settings.penalty.recover_strength == 0
    assert settings.patience == 2
    gradual = (
        steps(
            {
                "step": "prune",
                "sparsity": 0.5,
                "gradual": {"passes": 4, "penalty": {"strength": 0.25}, "saliency": "lamp"},
            }
        )
        .steps[0]
        .gradual
    )
    assert gradual is not None
    settings = gradual.settings()
    assert settings.phases.model_dump() == {"sparsify": 0, "prune": 4, "recover": 0}
    assert (settings.penalty.strength, settings.penalty.prune_strength) == (0.0, 0.25)
    assert settings.saliency == "lamp"


def test_search_does_not_pretend_to_do_steps(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    from onnxprune import api

    with pytest.raises(RecipeError, match="lists steps"):
        api.search(mlp, mlp_data, tmp_path / "run", steps({"step": "verify"}))
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="prune without them"):
        api.prune(mlp, tmp_path / "out.onnx", sparsity=0.5, recipe=steps({"step": "verify"}))
    with pytest.raises(RecipeError, match="finetune without them"):
        api.finetune(mlp, str(mlp_data), tmp_path / "out.onnx", steps({"step": "verify"}))


def test_a_search_counts_in_the_unit_of_the_target_or_its_own() -> None:
    assert Recipe().unit == "elements"
    assert load_recipe(None, {"search.unit": "cycles"}).unit == "cycles"
    assert load_recipe(None, {"target": "20kB"}).unit == "packed_bytes"
    with pytest.raises(RecipeError, match=r"search\.unit cycles differs"):
        load_recipe(None, {"search.unit": "cycles", "target": "20kB"})
