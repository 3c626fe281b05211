"""What authors of plugins use in their tests.

Three things, each by itself, in any test runner and at a prompt:

* `check` plays calls with a class that is declared inline, and tells whether it may be served with a log.
* `Server` is a server with the plugins named and no others, as a thread or as a process that can be killed; its clients
  are sessions of this process or processes of their own; connections are cut and time goes by when the test says so.
* `registry.testing.laws` has what everybody expects of a mapping, a sequence, a set, a queue or a lock, as tests to
  inherit. They need pytest and hypothesis: ``pip install "shared-registry[testing]"``.

And one for pytest: with ``pytest_plugins = ["registry.testing.pytest_plugin"]`` in the ``conftest.py``, no test meets
a server of the person who runs it, and there are the fixtures `registry_server` and `registry_client`.

The check
---------

::

    from registry.testing import Use, check
    from cookies import COOKIES

    def test_cookies_may_be_logged():
        check(COOKIES)                                  # with calls that are made up from the signatures
        check(COOKIES, [
            ("put", "example.org", "theme", "dark"),
            Use("put", "example.org", "lang", "de", session=2, after=60.0),
            ("all", "example.org"),
        ])

What it does: the series is played once, then everybody is cut off and comes back, what is due happens, and every
session dies. Then each of its moments is played again by itself, in an engine that is restored from the moment before,

* with other histories of the sets in the object's state, since the order of a set does not survive a restore;
* under `sys.setprofile`, which sees clocks, random numbers, the environment and files;
* in interpreters of their own with different hash seeds, if they can import the class;
* where methods are declared *keyed*, with a look at what is read of the other keys before and after.

Values are compared in canonical form, attribute by attribute, those that the state does not save too. What stays
unseen is what no call of the series reaches, so give it calls that do; the `Report` names methods that
no call has run.

Servers and clients
-------------------

::

    from registry.testing import Server
    from cookies import COOKIES

    def remember(shared, site):                        # runs in a process of its own
        shared.cookies("crawler").put(site, "theme", "dark")

    def test_two_processes_share_a_jar():
        with Server(COOKIES) as server:
            one, two = server.clients(2)
            one.run(remember, "example.org")
            one.kill()
            two.run(remember, "example.com")
            with server.connect() as shared:
                assert shared.cookies("crawler").all("example.org") == {"theme": "dark"}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.testing._check import Report, check
    from registry.testing._clients import Client
    from registry.testing._findings import CheckFailed, Finding
    from registry.testing._series import Call, End, Item, Use
    from registry.testing._servers import Server, until

__all__ = ["Call", "CheckFailed", "Client", "End", "Finding", "Item", "Report", "Server", "Use", "check", "until"]

# Where each name lives: a client of a test needs nothing of the engine, and a process starts for each.
_HOMES = {
    "Call": "_series",
    "CheckFailed": "_findings",
    "Client": "_clients",
    "End": "_series",
    "Finding": "_findings",
    "Item": "_series",
    "Report": "_check",
    "Server": "_servers",
    "Use": "_series",
    "check": "_check",
    "until": "_servers",
}


def __getattr__(name: str) -> object:
    """Load a public name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names too, loaded or not."""
    return sorted({*globals(), *__all__})
