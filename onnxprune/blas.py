"""The number of threads of linear algebra, which belongs to the whole process, not to a call."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def blas_threads(wanted: int | None) -> Iterator[None]:
    """Hold linear algebra to so many threads for a block; None leaves it as it is.

    The process has one such number, and results may differ in their last bits with it. So blocks
    that set it wait for each other, and each leaves the process as it was.
    """
    if wanted is None:
        yield
        return
    with _ONE_AT_A_TIME, threadpool_limits(wanted, user_api="blas"):
        yield
