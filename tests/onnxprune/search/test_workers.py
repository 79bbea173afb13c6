"""Trials on several workers: the same trials, and none lost when a worker dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from onnxprune import api
from onnxprune.errors import RecipeError, RunError
from onnxprune.recipe import load_recipe
from onnxprune.search.journal import Journal, read_trials
from onnxprune.search.opening import Search, open_search
from onnxprune.search.problem import Trial
from onnxprune.search.run import make_controller, run_search
from onnxprune.search.space import Levels
from onnxprune.search.workers import Processes, open_workers
from onnxprune.study import open_study


@pytest.fixture
def search(mlp: Path, mlp_data: Path, tmp_path: Path) -> Search:
    settings = load_recipe(None, {"prune.method": "magnitude", "max_drop": 0.05})
    study = open_study(mlp, str(mlp_data), settings)
    return open_search(study, settings, tmp_path / "levels", lambda *_: None)


def candidates(search: Search, count: int) -> list[Levels]:
    return make_controller("random", search.problem, 0).ask(count)


def test_processes_make_the_trials_that_this_process_makes(search: Search) -> None:
    asked = candidates(search, 6)
    with open_workers(search.tester, 2) as workers:
        made = [workers.submit(levels, np.inf) for levels in asked]
        assert [future.result() for future in made] == [search.tester(x, np.inf) for x in asked]


class Dying:
    """A tester whose process kills itself the first time that it is asked for a candidate.

    Args:
        search: whose tester it is.
        marks: folder in which it notes whom it has died for.
        deaths: how often it dies for each candidate.
    """

    def __init__(self, search: Search, marks: Path, deaths: int) -> None:
        self._tester, self._marks, self._deaths = search.tester, marks, deaths

    def __call__(self, levels: Levels, must_beat: float) -> Trial:
        """Die, or try the candidate."""
        name = "-".join(map(str, levels))
        died = len(list(self._marks.glob(f"{name}.*")))
        if died < self._deaths and sum(levels) % 2:
            (self._marks / f"{name}.{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._tester(levels, must_beat)


def searched(search: Search, path: Path, deaths: int) -> list[Trial]:
    marks = path.parent / "marks"
    marks.mkdir()
    controller = make_controller("random", search.problem, 0)
    workers = Processes(Dying(search, marks, deaths), 2)  # type: ignore[arg-type]
    try:
        journal = Journal(path, {}, resume=False)
        return run_search(
            controller, journal, workers, trials=8, at_once=2, progress=lambda *_: None
        )
    finally:
        workers.close()


def test_a_killed_worker_loses_no_trial(search: Search, tmp_path: Path) -> None:
    trials = searched(search, tmp_path / "journal.jsonl", deaths=1)
    assert len(list((tmp_path / "marks").iterdir())) >= 1, "no worker died"
    assert len({trial.levels for trial in trials}) == 8
    assert trials == [search.tester(trial.levels, search.problem.max_drop) for trial in trials]
    assert read_trials(tmp_path / "journal.jsonl") == trials


def test_a_candidate_that_kills_every_worker_ends_the_search(
    search: Search, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="died 3 times over one candidate"):
        searched(search, tmp_path / "journal.jsonl", deaths=99)


def test_search_on_several_workers(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(None, {"search.workers": 2, "search.trials": 12, "max_drop": 0.05})
    report = api.search(mlp, mlp_data, tmp_path / "run", recipe)
    assert report.search is not None
    assert report.search.trials == 12
    assert len(read_trials(tmp_path / "run" / "journal.jsonl")) == 12


def test_a_cluster_has_an_address(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(None, {"search.backend": "dask", "search.trials": 2})
    with pytest.raises(RecipeError, match=r"needs search\.scheduler"):
        api.search(mlp, mlp_data, tmp_path / "run", recipe)


@pytest.mark.slow
def test_dask_loses_no_trial_when_a_worker_is_killed(search: Search, tmp_path: Path) -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        victim = next(iter(cluster.workers.values()))
        controller = make_controller("random", search.problem, 0)
        journal = Journal(tmp_path / "journal.jsonl", {}, resume=False)
        killed = []

        def kill_one(done: int, total: int) -> None:
            if done == 4 and not killed:
                killed.append(victim.pid)
                os.kill(victim.pid, signal.SIGKILL)

        with open_workers(search.tester, 2, "dask", cluster.scheduler_address) as workers:
            trials = run_search(
                controller, journal, workers, trials=12, at_once=2, progress=kill_one
            )
    assert killed
    assert len({trial.levels for trial in trials}) == 12
    assert trials == [search.tester(trial.levels, search.problem.max_drop) for trial in trials]


@pytest.mark.slow
def test_ray_makes_the_same_trials(search: Search) -> None:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    asked = candidates(search, 4)
    with open_workers(search.tester, 2, "ray", "auto") as workers:
        made = [workers.submit(levels, np.inf).result(timeout=120) for levels in asked]
    assert made == [search.tester(levels, np.inf) for levels in asked]
