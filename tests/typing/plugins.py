"""A plugin of somebody else's, who is strict, and a program that uses it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typing_extensions import assert_type

import registry
from registry import SharedObject, ValueType, hookimpl
from registry.hosting import Holder, Owner, Waiter, Waiters, call
from registry.testing import Server, Use, check, until


class CookieJar:
    """Keep cookies by site."""

    def __init__(self, limit: int = 100) -> None:
        self.limit = limit
        self.jars: dict[str, dict[str, str]] = {}

    def put(self, site: str, name: str, value: str) -> None:
        """Keep a cookie."""
        self.jars.setdefault(site, {})[name] = value

    def all(self, site: str) -> dict[str, str]:
        """Return the cookies of a site."""
        return self.jars.get(site, {})


class Seats:
    """Give out seats, to whoever waits."""

    def __init__(self, count: int = 1) -> None:
        self.free = count
        self.taken: dict[int, Owner] = {}
        self.waiters = Waiters()

    def take(self, timeout: float | None = None) -> int | None:
        """Wait for a seat: a method is annotated with what its callers get."""
        if not self.free:
            return self.waiters.wait(timeout)
        self.free -= 1
        return self._give(call().owner)

    def leave(self, seat: int) -> None:
        """Give a seat back."""
        self.taken.pop(seat)
        waiter = self.waiters.first
        if waiter is None:
            self.free += 1
        else:
            assert_type(self.waiters.wake(self._give(waiter.owner)), Waiter | None)

    def holders(self) -> list[Holder]:
        """Tell who holds what."""
        return []

    def _give(self, owner: Owner) -> int:
        seat = call().token()
        self.taken[seat] = owner
        return seat


COOKIES = SharedObject("cookies", CookieJar, readonly=["all"])
SEATS = SharedObject("seats", Seats, waiting=["take"])


class Money:
    """Cross as itself."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share both."""
    return [COOKIES, SEATS]


@hookimpl
def registry_value_types() -> Iterable[ValueType]:
    """Declare a value."""
    return [ValueType(Money, "shop.Money", encode=lambda money: money.cents, decode=Money)]


def use() -> None:
    """Use them, in both spellings."""
    shared = registry.connect("scrapers", plugins=[COOKIES])
    jar: CookieJar = shared.cookies("crawler", limit=10)
    jar.put("example.org", "theme", "dark")
    found = shared.open(COOKIES, "crawler")
    assert_type(found, CookieJar)
    assert_type(found.all("example.org"), dict[str, str])
    assert_type(shared.open(SEATS, "room", count=2).take(timeout=1.0), int | None)
    assert_type(shared.open("cookies", "x"), Any)


def put(shared: registry.ManagerClient, site: str, *, theme: str = "dark") -> int:
    """Run in a process of its own."""
    shared.open(COOKIES, "crawler").put(site, "theme", theme)
    return len(site)


def test() -> None:
    """Test them."""
    report = check(COOKIES, [("put", "a", "b", "c"), Use("all", "a", session=2)], kwargs={"limit": 3})
    assert_type(report.missed, tuple[str, ...])
    with Server(COOKIES, SEATS, process=True, log="disk") as server, server.connect() as shared:
        one, two = server.clients(2)
        assert_type(one.run(put, "example.org", theme="light"), int)
        assert_type(two.submit(put, "example.org").result(), int)
        until(lambda: shared.objects("cookies:*"))
        server.advance(60)
