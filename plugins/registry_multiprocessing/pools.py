"""Pools of worker processes.

Promise
    As `multiprocessing.Pool`.

Cost
    Workers are started from scratch, which takes some hundredths of a second each. Forks of a server would keep its
    connections and its locks.

Failure
    *Who has made the pool dies*: the pool ends with its last proxy, wherever that was. *A worker dies*: there is
    another one, and its task is lost, as there.

Functions are found by their names in the workers, as with the start method "spawn": they stand in a module, and a
program that is run as a script has ``if __name__ == "__main__":`` around what it does.

Example::

    >>> from registry import Manager
    >>> with Manager() as manager:
    ...     with manager.Pool(1) as pool:
    ...         pool.map(abs, [-1, 2])
    [1, 2]
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
from collections.abc import Callable, Iterable
from multiprocessing.context import BaseContext
from typing import Any

__all__ = ["Pool"]


class Pool(multiprocessing.pool.Pool):
    """Have functions called by processes.

    Args:
        processes: How many; None is one for each CPU.
        initializer: Called in each of them first, with `initargs`.
        maxtasksperchild: How many tasks a process may do before another one takes its place.
        context: How they are started, if not by "spawn".
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: BaseContext | None = None,
    ) -> None:
        super().__init__(
            processes, initializer, initargs, maxtasksperchild, context or multiprocessing.get_context("spawn")
        )

    def __del__(self) -> None:
        """Say nothing: a pool that goes with its last proxy is no leak, and its processes end with it."""
