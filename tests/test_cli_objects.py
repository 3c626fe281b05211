"""``registry objects``, ``call`` and ``delete``: what they print, how they end, and what they leave alone."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import click
import pytest
from servers import another, until

import registry
from registry import ManagerClient, ManagerServer, cli
from registry.cli import _common

Captured = pytest.CaptureFixture[str]


class Odd:
    """What only a pickle can carry; opening it would leave a trace."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (f"{os.environ['REGISTRY_HOME']}/opened",)


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO())


@pytest.fixture
def server(home: Path) -> Iterator[ManagerServer]:
    """Serve the name ``x``."""
    with ManagerServer("x") as server:
        yield server


@pytest.fixture
def client(server: ManagerServer) -> Iterator[ManagerClient]:
    """Be another process, as far as the server knows."""
    with another("x", None, label="worker") as client:
        yield client


def run(captured: Captured, *words: str) -> tuple[int, str, str]:
    """Run a command and return how it ended and what it said."""
    captured.readouterr()
    code = cli.run([*words, "-a", "x"])
    said = captured.readouterr()
    return code, said.out, said.err


# call


def test_a_call_shows_what_it_returns(client: ManagerClient, capsys: Captured) -> None:
    """As the Python prompt would: nothing for None."""
    client.counter("hits").incr()
    client.dict("prices")["BTC"] = {"usd": 97_000}
    assert run(capsys, "call", "counter:hits", "incr", "5") == (0, "6\n", "")
    assert run(capsys, "call", "dict:prices", "get", "ETH") == (0, "", "")
    assert run(capsys, "call", "dict:prices", "copy") == (0, "{'BTC': {'usd': 97000}}\n", "")
    assert client.counter("hits").get() == 6


def test_a_call_for_programs(client: ManagerClient, capsys: Captured) -> None:
    """``--json`` prints the value as JSON has room for it."""
    client.dict("prices").update({"BTC": (1, 2), 5: {3}})
    code, out, _ = run(capsys, "call", "dict:prices", "copy", "--json")
    assert (code, json.loads(out)) == (0, {"BTC": [1, 2], "5": [3]})
    assert run(capsys, "call", "dict:prices", "get", "ETH", "--json")[1] == "null\n"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("42", 42),
        ("-5", -5),
        ("1.5", 1.5),
        ('"42"', "42"),
        ("BTC", "BTC"),
        ("a=b", "a=b"),
        ("null", None),
        ("[1, true]", [1, True]),
        ('"--x"', "--x"),
    ],
)
def test_arguments_are_json_or_else_text(client: ManagerClient, capsys: Captured, word: str, value: object) -> None:
    """A word is read as JSON where it is JSON, a negative number included; everything else is text."""
    prices = client.dict("prices")
    prices["there"] = 0
    assert run(capsys, "call", "dict:prices", "setitem", "key", word)[0] == 0
    assert prices.copy()["key"] == value


def test_underscores_may_be_left_out(client: ManagerClient, capsys: Captured) -> None:
    """A special method is called by either spelling; its answer is the same."""
    client.dict("prices")["BTC"] = 1
    for method in ("len", "__len__"):
        assert run(capsys, "call", "dict:prices", method)[:2] == (0, "1\n")
    assert run(capsys, "call", "dict:prices", "iter")[:2] == (0, "['BTC']\n")


def test_pickles_are_named_and_not_opened(client: ManagerClient, home: Path, capsys: Captured) -> None:
    """Opening a pickle runs code, which an operator's look must not."""
    client.dict("prices")["odd"] = Odd()
    code, out, _ = run(capsys, "call", "dict:prices", "copy")
    assert code == 0
    assert "<pickle of test_cli_objects.Odd, " in out
    assert run(capsys, "call", "dict:prices", "getitem", "odd")[1].startswith("<pickle of test_cli_objects.Odd, ")
    assert not (home / "opened").exists()


def test_a_call_makes_no_object(client: ManagerClient, capsys: Captured) -> None:
    """A name that was typed wrongly is told, and nothing has that name afterwards."""
    code, out, err = run(capsys, "call", "counter:hist", "incr")
    assert (code, out) == (1, "")
    assert err.startswith("registry: no object counter:hist on server 'x' ")
    assert client.objects() == []


def test_an_error_of_the_object_is_told_with_its_class(client: ManagerClient, capsys: Captured) -> None:
    """What the hosted method raises is one line, and the exit code is 1."""
    client.dict("prices")["BTC"] = 1
    assert run(capsys, "call", "dict:prices", "getitem", "ETH") == (
        1,
        "",
        "registry: dict:prices.getitem() raised KeyError: 'ETH'\n",
    )


def test_a_call_of_what_another_holds_is_a_conflict(client: ManagerClient, capsys: Captured) -> None:
    """An error of ours keeps its own exit code."""
    client.lock("login").acquire(blocking=False)
    assert run(capsys, "call", "lock:login", "release")[0] == 5


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["call", "dict:prices", "frob"], "shared dict:prices has no method 'frob'; it has "),
        (["call", "dict:prices", "get", "--jsno"], "No such option: --jsno; a text that begins so is given as JSON"),
        (["call", "dict", "copy"], "each dict has a name: write dict:NAME"),
        (["delete", "dict", "--yes"], "each dict has a name: write dict:NAME"),
        (["delete"], "Missing argument 'OBJECT'"),
    ],
)
def test_a_wrong_call_does_nothing(client: ManagerClient, capsys: Captured, words: list[str], text: str) -> None:
    """What was typed wrongly is exit code 2, and nothing is called."""
    prices = client.dict("prices")
    prices["BTC"] = 1
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert text in err
    assert prices.copy() == {"BTC": 1}


def test_an_unknown_type_is_told(client: ManagerClient, capsys: Captured) -> None:
    """A type that the server lacks is an error that says which it has."""
    code, _, err = run(capsys, "call", "cookies:x", "get")
    assert code == 1
    assert "no shared type 'cookies' on server 'x'" in err


# delete


def test_a_deletion_asks_first(client: ManagerClient, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal and without ``--yes`` nothing is done, and it is said whom it concerns."""
    lock = client.lock("login")
    lock.acquire()

    def wait() -> None:
        with pytest.raises(registry.errors.NoSuchObject):
            client.lock("login").acquire()

    waiter = threading.Thread(target=wait)
    waiter.start()
    until(lambda ask: ask.statistics(ask.lock("login"))["waiters"], client)
    code, out, err = run(capsys, "delete", "lock:login")
    assert (code, out) == (5, "")
    assert err.startswith("registry: lock:login would be gone with all that it holds: made by worker (")
    assert ", held by worker (" in err
    assert ", 1 waiting; nothing was done. --yes does it all the same" in err
    monkeypatch.setattr(_common, "interactive", lambda: True)
    monkeypatch.setattr(click, "confirm", lambda text, err: False)
    assert run(capsys, "delete", "lock:login")[0] == 5
    assert len(client.objects()) == 1
    monkeypatch.setattr(click, "confirm", lambda text, err: True)
    assert run(capsys, "delete", "lock:login") == (0, "", "registry: deleted lock:login\n")
    assert client.objects() == []
    waiter.join()


def test_a_deletion_for_programs(client: ManagerClient, capsys: Captured) -> None:
    """With ``--yes`` nobody is asked; what is not there cannot be deleted."""
    prices = client.dict("prices")
    prices["BTC"] = 1
    code, out, _ = run(capsys, "delete", "dict:prices", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"deleted": "dict:prices"})
    code, _, err = run(capsys, "delete", "dict:prices", "--yes")
    assert code == 1
    assert err.startswith("registry: no object dict:prices on server 'x' ")
    with pytest.raises(registry.errors.NoSuchObject):
        prices.copy()
    assert prices.copy() == {}


# All of them


def every(group: click.Group, *above: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield each command with the words that it is called by."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from every(command, *above, name)
        else:
            yield (*above, name), command


EVERY = dict(every(cli._registry))
WORDS = {
    "call": ["counter:a", "get"],
    "release": ["lock:a"],
    "delete": ["lock:a"],
    "state backup": ["/nowhere/x"],
}
# They look at what is here, make something of their own, or go on without a server.
ALONE = {
    "serve",
    "demo",
    "plugins",
    "new-plugin",
    "doctor",
    "state verify",
    "state dump",
    "state backup",
    "state restore",
}


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_command_prints_json_and_takes_an_address(words: tuple[str, ...]) -> None:
    """All have ``--json`` and ``--address``; the demo has a server of its own, and a new plugin needs none."""
    options = {spelling for each in EVERY[words].params for spelling in each.opts}
    assert "--json" in options
    assert {"-a", "--address"} <= options or words in (("demo",), ("new-plugin",))


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_command_refuses_a_wrong_option(words: tuple[str, ...], capsys: Captured) -> None:
    """An option that is none is a wrong use, told in one line."""
    assert cli.run([*words, *WORDS.get(" ".join(words), ["x"]), "--no-such-option"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("words", [words for words in EVERY if " ".join(words) not in ALONE], ids=" ".join)
def test_every_command_tells_that_there_is_no_server(words: tuple[str, ...], capsys: Captured, home: Path) -> None:
    """Where none runs none is started: exit code 3, with and without ``--json``, and nothing on the standard output."""
    given = [*words, *WORDS.get(" ".join(words), []), "-a", "x"]
    for more in ([], ["--json"]):
        assert cli.run([*given, *more]) == 3
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("registry: no server at x: ")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("words", [words for words in EVERY if " ".join(words) not in ALONE], ids=" ".join)
def test_every_command_tells_that_it_is_denied(
    words: tuple[str, ...], server: ManagerServer, home: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another key than the server's: exit code 4."""
    key = home / "other"
    key.write_bytes(b"another key than the server's")
    key.chmod(0o600)
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(key))
    assert cli.run([*words, *WORDS.get(" ".join(words), []), "-a", "x"]) == 4
    assert capsys.readouterr().err.startswith("registry: access denied")
