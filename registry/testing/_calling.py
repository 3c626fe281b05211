"""What runs in a client's process: one function after the other, each with the connected client as first argument.

Messages are pickles with their length before them, eight bytes in the order of the network. The first tells how to
connect, each other one which function to call. The answers tell what each has returned or raised, in their order.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import traceback
from typing import Any, BinaryIO, Final

import attrs

from registry.client import ManagerClient
from registry.testing import _where
from registry.testing._where import Where

_LENGTH: Final = struct.Struct("!Q")
_PROGRAM: Final = "from registry.testing._calling import main; main()"


@attrs.frozen
class Errand:
    """A function to call.

    Attributes:
        where: Where it is found; None where its pickle says enough.
        call: The function, its arguments, and those by name, as a pickle.
    """

    where: Where | None
    call: bytes

    @classmethod
    def of(cls, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Errand:
        """Tell another process what to call.

        Raises:
            TypeError: It could not find it there, or an argument cannot be pickled.
        """
        where = _where.of_function(function) if hasattr(function, "__code__") else None
        if isinstance(where, str):
            raise TypeError(f"another process cannot call it: {where}")
        try:
            return cls(where, pickle.dumps((function, args, kwargs)))
        except Exception as error:
            raise TypeError(f"another process cannot be given this: {error}") from error

    def run(self, shared: ManagerClient) -> Any:
        """Call it."""
        if self.where is not None and _where.load(self.where) is None:
            raise LookupError(f"there is no {self.where} for another process")
        function, args, kwargs = pickle.loads(self.call)
        return function(shared, *args, **kwargs)


@attrs.frozen
class Outcome:
    """What has become of a call.

    Attributes:
        value: What it returned, or raised, as a pickle.
        is_error: Whether it raised that.
        trace: Where, as text.
    """

    value: bytes
    is_error: bool = False
    trace: str = ""

    @classmethod
    def of(cls, errand: Errand, shared: ManagerClient) -> Outcome:
        """Call something, and tell what becomes of it."""
        try:
            value = errand.run(shared)
            try:
                return cls(pickle.dumps(value))
            except Exception as error:
                raise TypeError(f"{value!r} cannot be returned to another process: {error}") from error
        except BaseException as error:  # noqa: BLE001 - it is raised again where it was called from
            trace = traceback.format_exc()
            try:
                return cls(pickle.dumps(error), True, trace)
            except Exception:  # noqa: BLE001 - an error of a class that cannot be pickled is told all the same
                return cls(pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}")), True, trace)


def send(stream: BinaryIO, message: object) -> None:
    """Send a message."""
    data = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Return the next message.

    Raises:
        EOFError: There is none.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (size,) = _LENGTH.unpack(head)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


def command() -> list[str]:
    """Return the words that start a client in a process of its own."""
    return [sys.executable, *["-O"] * sys.flags.optimize, "-c", _PROGRAM]


def main() -> None:
    """Connect, and call what is asked for until standard input ends."""
    errands = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # What a function prints must not come between, and what it reads is not for it.
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    (url, authkey, options), sys.path[:] = receive(errands)
    with ManagerClient(url, authkey, **options) as shared:
        try:
            shared.connect()
        except Exception as error:  # noqa: BLE001 - the test is told
            send(answers, Outcome(pickle.dumps(error), True, traceback.format_exc()))
            return
        send(answers, Outcome(pickle.dumps(None)))
        while True:
            try:
                errand = receive(errands)
            except EOFError:
                break
            send(answers, Outcome.of(errand, shared))
