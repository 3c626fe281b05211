"""Tests of the error tree: texts, pickling, and the bases that people catch."""

from __future__ import annotations

import copy
import datetime
import pickle

import pytest

from registry import errors

SINCE = 1_700_000_000.0
AT = datetime.datetime.fromtimestamp(SINCE).isoformat(" ", "seconds")

# Each error, its text without a server, and what the text becomes on server 'default'.
CASES: list[tuple[errors.RegistryError, str]] = [
    (
        errors.DeclarationError("lock.readonly", "must be names in a tuple", "get"),
        "lock.readonly must be names in a tuple, not 'get' of type str",
    ),
    (
        errors.NotDurable("shop.Jar", "it has __slots__"),
        "shop.Jar cannot be kept by a server: it has __slots__. Keep plain values in its attributes, "
        "give it state() and load(), or declare it with threaded=True",
    ),
    (errors.PluginError("shop", "no such module"), "plugin 'shop': no such module"),
    (errors.ServerNotFound("unix:///x", "nobody listens"), "no server at unix:///x: nobody listens"),
    (
        errors.StateLost("it was killed"),
        "what this process had changed{on} is lost: it was killed. This is said once; the next call goes "
        "on with the state that is there now",
    ),
    (
        errors.OutcomeUnknown("dict:d.pop", "the connection broke"),
        "dict:d.pop{on} may or may not have taken effect: the connection broke. Read the object before you call again",
    ),
    (errors.Closed("this client", "make a new one"), "this client is closed: make a new one"),
    (
        errors.VersionMismatch("1", "2"),
        "this process speaks version 1 and the other side{on} version 2: install one version of "
        'shared-registry on both and "registry restart"',
    ),
    (errors.AccessDenied("wrong key"), "access denied{on}: wrong key"),
    (
        errors.CallTimeout("lock:login.acquire", 5.0, "held by cron.py (pid 7)"),
        "lock:login.acquire{on} was not done within 5.0 seconds: held by cron.py (pid 7). It had no "
        "effect; try again or give it a longer timeout",
    ),
    (
        errors.CallTimeout("lock:login.acquire", 5.0),
        "lock:login.acquire{on} was not done within 5.0 seconds. It had no effect; try again or give it a "
        "longer timeout",
    ),
    (errors.Deadlock("a waits for b"), "deadlock{on}: a waits for b"),
    (errors.Deadlock("a waits for b", (("a", "rlock:x", ("b", "c")),)), "deadlock{on}: a waits for b"),
    (
        errors.BlockingInLoop("lock:login.acquire"),
        "lock:login.acquire would stop the event loop that runs in this thread: await it with "
        "registry.aio, or call it in a thread with asyncio.to_thread()",
    ),
    (errors.CodeChanged("shop 1.2 wrote it"), "the code has changed{on}: shop 1.2 wrote it"),
    (
        errors.NotOwner("lock:login", "cron.py (pid 7)"),
        "lock:login{on} is not held by this caller: cron.py (pid 7) holds it. Release it where it was "
        'acquired, best by "with"',
    ),
    (
        errors.NotOwner("lock:login", ""),
        'lock:login{on} is not held by this caller: nobody holds it. Release it where it was acquired, best by "with"',
    ),
    (
        errors.LockLost("lock:login", "its lease ran out"),
        "lock:login{on} is no longer held here: its lease ran out. Another may hold it by now: leave the "
        "block, acquire it again and check what you were changing",
    ),
    (
        errors.EditConflict("dict:prices", "'BTC'"),
        "dict:prices['BTC']{on} was written by someone else during this edit, which changed nothing: edit it "
        "again, and let every writer of this key use edit()",
    ),
    (
        errors.UnknownType("cookies"),
        "no shared type 'cookies'{on}. Install the plugin that declares it there and \"registry restart\"",
    ),
    (errors.UnknownType("cookies", "Use jar()"), "no shared type 'cookies'{on}. Use jar()"),
    (errors.NoSuchObject("dict:d", "it was deleted"), "no object dict:d{on}: it was deleted"),
    (
        errors.DefinitionConflict("counter:hits", "start=0", {"start": 5}, "cron.py (pid 7)", SINCE),
        f"counter:hits{{on}} was made with start=0 by cron.py (pid 7) at {AT}, this call gives "
        "{{'start': 5}}. Pass no arguments to use it as it is, take another name, or "
        "delete() it first",
    ),
    (
        errors.NotShareable("value['a'] of class shop.Jar", "make it a dict"),
        "value['a'] of class shop.Jar cannot be shared: make it a dict",
    ),
    (errors.SnapshotError("this dict is a copy"), "this dict is a copy"),
    (
        errors.RemoteError("dict:d.get", "shop.Boom", "no luck", "Traceback ..."),
        "dict:d.get{on} raised shop.Boom: no luck",
    ),
    (errors.RemoteError("", "shop.Boom", ""), "a shared object{on} raised shop.Boom"),
]
IDS = [type(error).__name__ for error, _ in CASES]


@pytest.mark.parametrize(("error", "text"), CASES, ids=IDS)
def test_text(error: errors.RegistryError, text: str) -> None:
    """Each error says the thing, the server where it is known, and the cure."""
    assert str(error) == text.format(on="")
    if hasattr(error, "server"):
        assert str(error.located("'default'")) == text.format(on=" on server 'default'")


@pytest.mark.parametrize("error", [error for error, _ in CASES], ids=IDS)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_are_equal(error: errors.RegistryError, again: object) -> None:
    """Pickle and copy give the same class, data and text, also for those with an OSError in their bases."""
    other = again(error)  # type: ignore[operator]
    assert type(other) is type(error)
    assert other.args == error.args
    assert vars(other) == vars(error)
    assert str(other) == str(error)


@pytest.mark.parametrize("error", [error for error, _ in CASES], ids=IDS)
def test_arguments_rebuild(error: errors.RegistryError) -> None:
    """The positional arguments are all the data, which is what the wire relies on."""
    assert vars(type(error)(*error.args)) == vars(error)
    assert tuple(vars(error).values()) == error.args


def test_located_fills_an_empty_server_only() -> None:
    """The first who knows the server names it; the error found first keeps its traceback, cause and notes."""
    error = errors.LockLost("lock:a", "forced")
    error.__dict__["__notes__"] = ["a note"]
    error.__cause__ = cause = ValueError()
    there = error.located("'a'")
    assert (there.server, error.server) == ("'a'", "")
    assert there.located("'b'") is there
    assert there.__cause__ is cause
    assert there.__dict__["__notes__"] == ["a note"]


def test_located_leaves_alone_what_has_no_server() -> None:
    """An error of this side alone has no server to name."""
    error = errors.Closed("x", "y")
    assert error.located("'a'") is error


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("DeclarationError", ValueError),
        ("NotDurable", TypeError),
        ("PluginError", ImportError),
        *((n, ConnectionError) for n in ("ServerNotFound", "StateLost", "OutcomeUnknown", "Closed")),
        ("VersionMismatch", ConnectionError),
        ("AccessDenied", PermissionError),
        ("CallTimeout", TimeoutError),
        *((n, RuntimeError) for n in ("Deadlock", "BlockingInLoop", "CodeChanged", "NotOwner", "LockLost")),
        ("EditConflict", RuntimeError),
        ("UnknownType", AttributeError),
        ("NoSuchObject", LookupError),
        ("DefinitionConflict", ValueError),
        ("NotShareable", TypeError),
        ("SnapshotError", TypeError),
        ("RemoteError", Exception),
    ],
)
def test_bases(name: str, bases: type) -> None:
    """Each error is also of the builtin class under which people expect it."""
    assert issubclass(getattr(errors, name), (errors.RegistryError,))
    assert issubclass(getattr(errors, name), bases)


def test_all_is_everything() -> None:
    """``__all__`` is sorted and names every class of the file."""
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert errors.__all__ == sorted(classes)


def test_a_strange_time_does_not_hide_the_conflict() -> None:
    """A time that no clock shows, as a peer may send it, still gives a text."""
    error = errors.DefinitionConflict("a:b", 1, 2, "x", float("inf"))
    assert "at second inf" in str(error)


def test_warnings_are_user_warnings() -> None:
    """Both warnings are shown by default, as a user's own are."""
    assert issubclass(errors.StaleServer, UserWarning)
    assert issubclass(errors.LostUpdateWarning, UserWarning)
    assert str(errors.StaleServer("restart it")) == "restart it"
