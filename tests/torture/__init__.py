"""Torture with real processes: what is killed, stopped, interrupted and cut must leave everything else right.

Each experiment is a module with functions that run it so many times and return what was counted. They run in a process
of their own (`experiment`), because they fork, and whoever forks should have one thread. The same is a command::

    PYTHONPATH=tests python -m torture deaths.handovers 1000

`nursery` forks processes that talk in lines, and `scissors` cuts connections at a byte.
"""

from __future__ import annotations
