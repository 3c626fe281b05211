"""What serving takes of its process: the event loop, the signals, and the collector of garbage."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("registry")

SPARING = 1000  # collections of the second generation between two of everything, see `garbage_spared`


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop: uvloop's where it is installed, since round trips are most of what we do."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


@contextmanager
def signals_taken(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call `stop` in the loop, where they would raise in the middle of a step.

    What was ignored stays so, as under nohup: Ctrl-C does not end the server of a manager. On a thread that is not the
    main one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def drain(number: int, frame: FrameType | None = None) -> None:
        log.info("stopping on %s", signal.Signals(number).name)
        loop.call_soon_threadsafe(stop)

    for number in before:
        try:
            loop.add_signal_handler(number, drain, number)
        except NotImplementedError:  # Windows
            signal.signal(number, drain)
    try:
        yield
    finally:
        for number, handler in before.items():
            try:
                loop.remove_signal_handler(number)
            except NotImplementedError:
                pass
            signal.signal(number, handler)


@contextmanager
def garbage_spared() -> Iterator[None]:
    """Keep the collector of cyclic garbage from looking at all that is held, which stops a large server.

    What was recovered is never looked at. What has been made since, and has outlived two collections, is looked at once
    in some millions of new objects, not in 70,000: the server itself makes no cycles, so that only those of hosted
    classes wait for it.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(before[0], before[1], SPARING)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
