"""What the checks look at. It is collected once, before the first of them, and nothing is changed by that.

A server that runs is asked, over a session of its own, as ``registry status`` does. None is ever started, and no file
is made: where there is none, its absence is a finding.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import attrs

from registry import errors
from registry.cli import _common, _servers

if TYPE_CHECKING:
    from registry._addresses import Address, Place
    from registry._link import Link
    from registry.client import ManagerClient


@attrs.define
class Scene:
    """What is known before the checks.

    Attributes:
        asked: The address as it was given; None is the environment's.
        address: What it means; None where it means nothing, and `trouble` says why.
        place: The server's directory; None for ``memory://``, too.
        notes: What the last server there has noted of itself, whether it runs or not.
        secret: The key that this process would show; None where there is none, and `no_key` says why.
        status: What the server that runs tells of itself; empty where none could be asked, and `error` says why.
        about: What else it tells when it is asked by a doctor; empty if it is of a version that does not.
        warnings: What it told of this process's code.
        tls: What this process sees of the server's TLS, as `_servers.tls_of` tells it.
        no_tls: Why there is no TLS with it, where that is the reason.
        lease: For how many seconds the server believes this process without a sign of life, 0 if the system tells it of
            the end; None where that is not known.
        reads: Why reads of this process are round trips, empty if they need not be; None where that is not known.
        proc: Where the system tells of processes.
        groups: Where it tells of control groups.
        memory: Where a file system is memory.
    """

    asked: str | None = None
    address: Address | None = None
    trouble: Exception | None = None
    place: Place | None = None
    notes: dict[str, Any] = attrs.field(factory=dict)
    secret: bytes | None = attrs.field(default=None, repr=False)
    no_key: Exception | None = None
    status: dict[str, Any] = attrs.field(factory=dict)
    about: dict[str, Any] = attrs.field(factory=dict)
    error: Exception | None = None
    warnings: list[str] = attrs.field(factory=list)
    tls: dict[str, Any] | None = None
    no_tls: Exception | None = None
    lease: float | None = None
    reads: str | None = None
    proc: str = "/proc"
    groups: str = "/sys/fs/cgroup"
    memory: str = "/dev/shm"

    @property
    def label(self) -> str:
        """How people call the server."""
        return self.address.label if self.address is not None else str(self.asked)

    @property
    def option(self) -> str:
        """How a command is told which server is meant; empty where it would find it by itself."""
        return f" -a {self.label}" if self.asked is not None else ""

    @property
    def pid(self) -> int | None:
        """The process of the server, if it runs on this machine where this process sees it."""
        from registry import _peers

        if not self.status:
            return self.left
        if self.status["host"] != _peers.machine():
            return None
        # The same number means another process in another container, which may have the same host name.
        where, _, _ = self._process.rpartition("/")[0].rpartition("/")
        return int(self.status["pid"]) if where in ("", _peers.boot()) else None

    @property
    def _process(self) -> str:
        """The name that the last server has noted for its process, which means no other one; empty without."""
        return str(self.notes.get("process", ""))

    @property
    def left(self) -> int | None:
        """The process that has noted itself as the server, if it still lives, whether it answers or not."""
        from registry import _peers

        pid = self.notes.get("pid")
        if not isinstance(pid, int) or "ended" in self.notes:
            return None
        ended, pidfd = _peers.find(self._process)
        if pidfd is not None:
            os.close(pidfd)
        return None if ended or not _peers.alive(pid) else pid


def look(asked: str | None) -> Scene:
    """Collect what there is to know about a server and how this process gets to it."""
    from registry._addresses import Place, find_authkey, parse

    _common.refuse_stock(asked)
    scene = Scene(asked)
    try:
        scene.address = parse(asked)
        if scene.address.kind == "memory":
            return scene
        scene.place = Place(scene.address)
    except (ValueError, errors.AccessDenied) as error:
        scene.trouble = error
        return scene
    scene.notes = _servers.info(scene.place)
    try:
        scene.secret = find_authkey(None, scene.address)
    except (OSError, ValueError) as error:
        scene.no_key = error
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _ask(scene)
    scene.warnings = [str(each.message) for each in caught if issubclass(each.category, errors.StaleServer)]
    return scene


def _ask(scene: Scene) -> None:
    with _common.usage():
        client = _common.client_of(scene.asked, "doctor")
    try:
        if scene.address is not None and scene.address.kind == "tls":
            _look_at_files(scene, client)
        with client:
            client.connect()
            scene.tls = _servers.tls_of(client)
            scene.status = client.statistics()
            link = client._home.link()
            scene.lease = link.lease
            scene.reads = _why_round_trips(link)
            scene.about = dict(link.ask("about"))
    except AttributeError:
        pass  # it is of a version that does not know the last question
    except Exception as error:  # noqa: BLE001 - whatever keeps a client from its server is what is looked for
        scene.error = error
        if scene.address is not None and scene.address.kind == "tls":
            from registry import _tls

            if _tls.is_refusal(error):
                scene.no_tls = error


def _look_at_files(scene: Scene, client: ManagerClient) -> None:
    """Look whether this process can use the files that it has for TLS."""
    from registry import _addresses, _tls

    try:
        _tls.client_context(client._home._tls or _addresses.environment_tls())
    except (ValueError, errors.AccessDenied) as error:
        scene.no_tls = error
        raise


def _why_round_trips(link: Link) -> str:
    """Return why this process cannot answer reads of a server by itself, empty if it can."""
    from registry import _words

    if not _words.IS_SUPPORTED:
        return no_words()
    words = link.words
    if words is None:
        if not link.same_user:
            return "the server does not know this process for one of its own user on its own host"
        return "the server has found no room for the file that it would tell of changes in"
    if words.view() is None:
        return "the file in which the server tells of changes cannot be mapped; it may be in another container"
    if not words.is_fresh():
        return "the clock that the server shows is not this one's; it may be in another time namespace"
    return ""


def no_words() -> str:
    """Return why no process of this machine can answer reads by itself."""
    import platform

    return f"that takes x86-64 Linux, and this is {platform.system()} on {platform.machine() or 'an unknown machine'}"
