"""Sockets at paths: in a place where another user could put one of theirs, nobody listens and nobody connects."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import KEY

from registry import ManagerServer, connect
from registry._addresses import check_socket, parse
from registry.errors import AccessDenied, ServerNotFound

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no unix sockets")


def private(home: Path) -> Path:
    """Return the path of a socket in a directory of ours."""
    directory = home / "mine"
    directory.mkdir(mode=0o700)
    return directory / "sock"


def open_to_all(home: Path) -> Path:
    path = private(home)
    path.parent.chmod(0o777)
    return path


def open_to_a_group(home: Path) -> Path:
    path = private(home)
    path.parent.chmod(0o770)
    return path


def sticky(home: Path) -> Path:
    path = private(home)
    path.parent.chmod(0o1777)
    return path


def below_an_open_one(home: Path) -> Path:
    path = private(home)
    home.chmod(0o777)
    return path


def through_a_link(home: Path) -> Path:
    path = private(home)
    (home / "link").symlink_to(path.parent)
    return home / "link" / "sock"


def a_link_itself(home: Path) -> Path:
    path = private(home)
    other = path.with_name("other")
    path.symlink_to(other)
    return path


def by_the_way_of_another(home: Path) -> Path:
    path = private(home)
    return path.parent / ".." / path.parent.name / path.name


CASES: dict[Callable[[Path], Path], str] = {
    open_to_all: r"the directory of the socket {path} can be written by others \(mode 777\), .*\(chmod 700",
    open_to_a_group: r"can be written by others \(mode 770\)",
    sticky: r"can be written by others \(mode 1777\)",
    below_an_open_one: r"{home}, above the socket {path}, can be written by others \(mode 777\): .*a name",
    through_a_link: r"lies behind a symbolic link, .*: write unix://{home}/mine/sock",
    a_link_itself: r"lies behind a symbolic link, .*: write unix://{home}/mine/other",
    by_the_way_of_another: r"lies behind a symbolic link, .*: write unix://{home}/mine/sock",
}


@pytest.mark.parametrize("place", CASES)
def test_no_server_listens_where_others_could(home: Path, place: Callable[[Path], Path]) -> None:
    """The text names place and cure; nothing is made there, nor anywhere else."""
    path = place(home)
    before = sorted(home.rglob("*"))
    with pytest.raises(AccessDenied, match=CASES[place].format(path=path, home=home)):
        ManagerServer(f"unix://{path}", KEY).open()
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("place", CASES)
def test_no_client_connects_where_others_could_listen(home: Path, place: Callable[[Path], Path]) -> None:
    """Whoever listens there does not hear of it."""
    path = place(home)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.realpath(path))
        listener.listen()
        listener.setblocking(False)
        with pytest.raises(AccessDenied, match=CASES[place].format(path=path, home=home)):
            connect(f"unix://{path}", KEY)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_the_temporary_directory_is_no_place_for_a_socket() -> None:
    """Though nobody can remove what is another's there: somebody may have been first."""
    with pytest.raises(AccessDenied, match=r"can be written by others|symbolic link"):
        ManagerServer("unix:///tmp/registry-test.sock", KEY).open()
    with pytest.raises(AccessDenied, match=r"can be written by others|symbolic link"):
        connect("unix:///tmp/registry-test.sock", KEY)


def test_a_directory_of_ones_own_is_fine(home: Path) -> None:
    """Below the temporary directory, too, as those of this test are."""
    path = private(home)
    with ManagerServer(f"unix://{path}", KEY), connect(f"unix://{path}", KEY) as client:
        client.dict("d")["k"] = 1
        assert client.dict("d")["k"] == 1


def test_a_directory_that_is_not_there_is_said_as_ever(home: Path) -> None:
    """There is no socket to be taken for ours."""
    with pytest.raises(ServerNotFound, match="nothing listens there"):
        connect(f"unix://{home}/nowhere/sock", KEY)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can give files away")
def test_a_server_does_not_listen_in_the_directory_of_another(home: Path) -> None:
    """Who owns it can put another socket there. A client may go there: it is that user's server which it wants."""
    path = private(home)
    os.chown(path.parent, 65534, -1)
    with pytest.raises(AccessDenied, match=r"belongs to uid 65534: use a directory of your own"):
        ManagerServer(f"unix://{path}", KEY).open()
    check_socket(str(path))


@pytest.mark.parametrize("address", ["unix://\0name", "\0name", "unix://@name", "stock+unix://\0name"])
def test_abstract_sockets_are_no_addresses(address: str) -> None:
    """They have no owner, and belong to whoever is first."""
    for use in (parse, connect, lambda address: ManagerServer(address, KEY)):
        with pytest.raises(ValueError, match=r"is an abstract socket, .*: write (stock\+)?unix:///path/of/the/socket"):
            use(address)
