"""Mistakes that checkers find: where one is not found, the comment beside it is an error."""

from __future__ import annotations

import registry
from registry import SharedObject
from registry.testing import Server

shared = registry.ManagerClient("scrapers")


class CookieJar:
    """Keep cookies."""

    def all(self, site: str) -> dict[str, str]:
        """Return those of a site."""
        return {}


COOKIES = SharedObject("cookies", CookieJar, readonly=["all"])


def find(client: registry.ManagerClient, site: str) -> int:
    """Be called in another process."""
    return len(site)


def mistakes() -> None:
    """Each line has one."""
    shared.lock()  # type: ignore[call-arg]
    shared.lock("login").aquire()  # type: ignore[attr-defined]
    shared.queue("jobs", size=3)  # type: ignore[call-arg]
    shared.queue("jobs").get(wait=True)  # type: ignore[call-arg]
    shared.counter("visits").incr("two")  # type: ignore[arg-type]
    shared.dict("prices").edit()  # type: ignore[call-arg]
    shared.dict("prices").keys().append("BTC")  # type: ignore[attr-defined]
    shared.event("e").owner_ended()  # type: ignore[attr-defined]
    shared.open(COOKIES, "x").every("site")  # type: ignore[attr-defined]
    shared.open(COOKIES, "x").all(3)  # type: ignore[arg-type]
    registry.connect("scrapers", timout=3)  # type: ignore[call-arg]
    SharedObject("cookies", CookieJar, per="process")  # type: ignore[arg-type]
    SharedObject("cookies", CookieJar, readonly=[1])  # type: ignore[list-item]
    with Server(COOKIES, log="paper") as server:  # type: ignore[arg-type]
        client = server.client()
        client.run(find)  # type: ignore[call-arg]
        client.run(find, 3)  # type: ignore[arg-type]
        number: str = client.run(find, "site")  # type: ignore[assignment]
        print(number)
