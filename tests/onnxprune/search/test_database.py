"""The levels of all weights: what they hold, that a killed build goes on, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import RecipeError, RunError
from onnxprune.recipe import Recipe, load_recipe
from onnxprune.search.opening import Search, open_search
from onnxprune.study import open_study


def opened(mlp: Path, data: Path, folder: Path, **fields: object) -> Search:
    recipe: Recipe = load_recipe(None, {"max_drop": 0.05, **fields})
    return open_search(open_study(mlp, str(data), recipe), recipe, folder, lambda *_: None)


@pytest.mark.parametrize("method", ["obs", "magnitude"])
def test_every_level_keeps_what_its_space_says(
    mlp: Path, mlp_data: Path, tmp_path: Path, method: str
) -> None:
    search = opened(mlp, mlp_data, tmp_path / "levels", **{"prune.method": method})
    database, space = search.tester.databases[0], search.problem.space
    for level in (1, 5, 12):
        levels = tuple(min(level, top) for top in space.tops.tolist())
        keep = space.keep(levels)
        constants = database.constants(keep)
        assert {n: np.count_nonzero(constants[n]) for n in keep} == keep
        assert space.cost(levels) == sum(keep.values())
    assert database.constants(space.keep(space.dense)) == {}
    errors = [entry.errors for entry in database.entries.values()]
    assert all(list(e) == sorted(e) for e in errors)


def test_a_build_that_was_killed_goes_on(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "levels"
    opened(mlp, mlp_data, folder)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    kept = (folder / "0000.npy").stat().st_mtime_ns
    (folder / "0001.json").unlink()
    (folder / "0001.npy").write_bytes(b"torn")
    opened(mlp, mlp_data, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert (folder / "0000.npy").stat().st_mtime_ns == kept, "what was there is not built again"


def test_levels_do_not_depend_on_how_many_are_pruned_at_once(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    made = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        opened(mlp, mlp_data, folder, **{"search.workers": workers})
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]


def test_levels_of_another_search_are_refused(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "levels"
    opened(mlp, mlp_data, folder)
    with pytest.raises(RunError, match="levels of another search: settings changed"):
        opened(mlp, mlp_data, folder, seed=1)
    with pytest.raises(RunError, match="method"):
        opened(mlp, mlp_data, folder, **{"prune.method": "wanda"})


def _use(mlp: Path, data: Path, folder: Path) -> None:
    search = opened(mlp, data, folder)
    search.tester(tuple(1 for _ in search.problem.space.variables), np.inf)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_damaged_levels_are_refused(
    mlp: Path, mlp_data: Path, tmp_path: Path, damage: bytes | None
) -> None:
    folder = tmp_path / "levels"
    opened(mlp, mlp_data, folder)
    if damage is None:
        np.save(folder / "0000.npy", np.zeros((2, 3), np.float32))
    else:
        (folder / "0000.npy").write_bytes(damage)
    with pytest.raises(RunError, match=r"0000\.npy"):
        _use(mlp, mlp_data, folder)


def test_levels_that_do_not_say_what_they_are_of_are_refused(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "levels"
    opened(mlp, mlp_data, folder)
    (folder / "levels.json").write_text("{")
    with pytest.raises(RunError, match=r"levels\.json' is damaged"):
        opened(mlp, mlp_data, folder)


def test_a_method_that_needs_data_says_so(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"set data\.calibration above 0"):
        opened(mlp, mlp_data, tmp_path / "levels", **{"data.calibration": 0.0})


def test_groups_share_their_levels(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    search = opened(mlp, mlp_data, tmp_path / "levels", **{"search.groups": ["fc*"]})
    [variable] = search.problem.space.variables
    assert set(variable.keeps) == {"fc0.weight", "fc1.weight"}
    keep = search.problem.space.keep((8,))
    shares = [keep[name] / counts[0] for name, counts in variable.keeps.items()]
    assert shares == pytest.approx([0.25, 0.25], abs=0.02)
    with pytest.raises(RecipeError, match=r"search\.groups: 'conv\*' matches no prunable weight"):
        opened(mlp, mlp_data, tmp_path / "more", **{"search.groups": ["conv*"]})


def test_rules_fix_levels(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    rules = [{"match": "fc0*", "sparsity": 0.5}, {"match": "fc1*", "pattern": "2:4"}]
    search = opened(mlp, mlp_data, tmp_path / "levels", rules=rules)
    by_name = {v.name: v for v in search.problem.space.variables}
    assert by_name["fc0.weight"].keeps["fc0.weight"] == (96,)
    assert by_name["fc1.weight"].keeps["fc1.weight"][0] == 32
    constants = search.tester.databases[0].constants(search.problem.space.keep((0, 0)))
    assert {
        name: np.count_nonzero(array) for name, array in constants.items() if name in by_name
    } == {
        "fc0.weight": 96,
        "fc1.weight": 32,
    }
    assert json.loads((tmp_path / "levels" / "levels.json").read_text())["method"] == "obs"
