"""Where trials are made: in this process, in processes of this machine, or on a cluster.

All of them take the same tester and give futures, so the search loop knows none of them. A worker that
dies takes no trial with it: what it was working on is given to another one, up to :data:`ATTEMPTS` times.
"""

from __future__ import annotations

import contextlib
import importlib.util
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from onnxprune.errors import RecipeError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onnxprune.search.problem import Trial
    from onnxprune.search.space import Levels
    from onnxprune.search.tester import Tester

Backend = Literal["local", "dask", "ray"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

ATTEMPTS = 3

LIBRARIES = {"dask": "distributed", "ray": "ray"}


class Workers(Protocol):
    """What the search loop needs."""

    def submit(self, levels: Levels, must_beat: float) -> Future[Trial]:
        """Begin a trial."""

    def lost(self, error: BaseException) -> bool:
        """Whether a trial failed because its worker died, so that another one should make it."""


class Here:
    """This process, one trial after the other.

    Args:
        tester: tries candidates.
    """

    def __init__(self, tester: Callable[[Levels, float], Trial]) -> None:
        self._tester = tester

    def submit(self, levels: Levels, must_beat: float) -> Future[Trial]:
        """See :class:`Workers`."""
        future: Future[Trial] = Future()
        future.set_result(self._tester(levels, must_beat))
        return future

    def lost(self, error: BaseException) -> bool:
        """See :class:`Workers`; there is no other worker here."""
        del error
        return False


class Processes:
    """Processes of this machine, by joblib's loky.

    Args:
        tester: sent to each of them once.
        count: how many.
    """

    def __init__(self, tester: Tester, count: int) -> None:
        self._tester, self._count = tester, count
        self._executor = self._started()

    def submit(self, levels: Levels, must_beat: float) -> Future[Trial]:
        """See :class:`Workers`."""
        from joblib.externals.loky.process_executor import BrokenProcessPool

        try:
            return self._executor.submit(_try, levels, must_beat)
        except BrokenProcessPool:
            self._executor = self._started()
            return self._executor.submit(_try, levels, must_beat)

    def lost(self, error: BaseException) -> bool:
        """See :class:`Workers`: one process that dies breaks the whole pool."""
        from joblib.externals.loky.process_executor import BrokenProcessPool

        return isinstance(error, BrokenProcessPool)

    def close(self) -> None:
        """End the processes."""
        self._executor.shutdown(wait=True, kill_workers=True)

    def _started(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        return ProcessPoolExecutor(self._count, initializer=_install, initargs=(self._tester,))


class Dask:
    """The workers of a dask cluster; dask itself gives what a dead worker had to another one.

    Args:
        tester: scattered to all of them once.
        scheduler: its address.
    """

    def __init__(self, tester: Tester, scheduler: str) -> None:
        import distributed

        try:
            self._client: Any = distributed.Client(scheduler, timeout="10s")
        except (OSError, ValueError) as error:
            msg = f"no dask scheduler answers at '{scheduler}': {error}"
            raise RunError(msg) from error
        self._tester = self._client.scatter(tester, broadcast=True)
        self._executor: Executor = self._client.get_executor(pure=False, retries=ATTEMPTS)

    def submit(self, levels: Levels, must_beat: float) -> Future[Trial]:
        """See :class:`Workers`."""
        return self._executor.submit(_try_with, self._tester, levels, must_beat)

    def lost(self, error: BaseException) -> bool:
        """See :class:`Workers`."""
        from distributed.scheduler import KilledWorker

        return isinstance(error, KilledWorker)

    def close(self) -> None:
        """Leave the cluster."""
        self._client.close()


class Ray:
    """The workers of a ray cluster; ray itself gives what a dead worker had to another one.

    Args:
        tester: put into the object store once.
        address: of the cluster; ``auto`` finds one on this machine.
    """

    def __init__(self, tester: Tester, address: str) -> None:
        import ray

        try:
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            msg = f"no ray cluster answers at '{address}': {str(error).splitlines()[0]}"
            raise RunError(msg) from error
        self._tester = ray.put(tester)
        self._call = ray.remote(max_retries=ATTEMPTS)(_try_with)

    def submit(self, levels: Levels, must_beat: float) -> Future[Trial]:
        """See :class:`Workers`."""
        future: Future[Trial] = self._call.remote(self._tester, levels, must_beat).future()
        return future

    def lost(self, error: BaseException) -> bool:
        """See :class:`Workers`."""
        from ray.exceptions import WorkerCrashedError

        return isinstance(error, WorkerCrashedError)

    def close(self) -> None:
        """Leave the cluster."""
        import ray

        ray.shutdown()


@contextlib.contextmanager
def open_workers(
    tester: Tester, count: int, backend: Backend = "local", scheduler: str | None = None
) -> Iterator[Workers]:
    """Workers for a block.

    Args:
        tester: tries candidates.
        count: of processes on this machine; 1 makes trials in this process.
        backend: who runs the workers.
        scheduler: address of the cluster.

    Raises:
        RecipeError: when the backend is not installed, or a cluster is asked for without its address.
        RunError: when the cluster does not answer.
    """
    if backend == "local" and count == 1:
        yield Here(tester)
        return
    workers: Processes | Dask | Ray
    if backend == "local":
        workers = Processes(tester, count)
    else:
        _check(backend, scheduler)
        assert scheduler is not None
        workers = (Dask if backend == "dask" else Ray)(tester, scheduler)
    try:
        yield workers
    finally:
        workers.close()


def _check(backend: Backend, scheduler: str | None) -> None:
    if importlib.util.find_spec(LIBRARIES[backend]) is None:
        msg = f'backend {backend} needs its libraries: pip install "onnxprune[cluster]"'
        raise RecipeError(msg)
    if scheduler is None:
        example = "tcp://10.0.0.1:8786" if backend == "dask" else "auto"
        msg = f"backend {backend} needs search.scheduler, the address of its cluster, for instance {example}"
        raise RecipeError(msg)


_installed: list[Tester] = []
"""The tester of this worker process; :func:`_install` runs once in each."""


def _install(tester: Tester) -> None:
    _installed[:] = [tester]


def _try(levels: Levels, must_beat: float) -> Trial:
    return _installed[0](levels, must_beat)


def _try_with(tester: Tester, levels: Levels, must_beat: float) -> Trial:
    return tester(levels, must_beat)
