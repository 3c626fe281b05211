"""The files of TLS: how they are named, and who may read them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from registry import ManagerClient, ManagerServer, aio
from registry._addresses import TlsFiles, check_file, environment_tls, given_tls, parse, served_tls
from registry.errors import AccessDenied

URL = "tls://db.example.org:7"
posix = pytest.mark.skipif(sys.platform == "win32", reason="modes are of POSIX")


def test_paths_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They mean files where the program was when it named them, as texts or as paths."""
    monkeypatch.chdir(tmp_path)
    files = given_tls({"cert": "a.pem", "key": Path("a.key"), "ca": "/etc/ca.pem"}, URL)
    assert files == TlsFiles(str(tmp_path / "a.pem"), str(tmp_path / "a.key"), "/etc/ca.pem")
    assert files.paths == {"cert": files.cert, "key": files.key, "ca": files.ca}
    assert given_tls(None, URL) is None


@pytest.mark.parametrize(
    ("tls", "address", "text"),
    [
        ({"certificate": "a"}, URL, "tls has 'certificate', and takes the paths 'cert', 'key' and 'ca'"),
        ({"cert": "a"}, URL, "tls has a cert of TLS and no key, and one needs the other: name both"),
        ({"key": "a"}, URL, "tls has a key of TLS and no cert"),
        ({"ca": ""}, URL, "tls['ca'] must be a path, not ''"),
        ({"ca": 5}, URL, "tls['ca'] must be a path, not 5"),
        ("a.pem", URL, "tls must be a mapping of paths, such as"),
        ({"ca": "a"}, "tcp://h:7", "files of TLS are for tls://host:port, not for tcp://h:7"),
        ({"ca": "a"}, "scrapers", "files of TLS are for tls://host:port, not for scrapers"),
    ],
)
def test_what_is_named_wrongly_is_told_at_once(tls: Any, address: str, text: str, home: Path) -> None:
    """By clients of both kinds, before anything is looked up, and by servers."""
    for make in (ManagerClient, aio.ManagerClient, ManagerServer):
        with pytest.raises(
            ValueError, match=re.escape(text.replace("scrapers", "") if make is ManagerServer else text)
        ):
            make(address, tls=tls)
    assert list(home.iterdir()) == []


def test_a_server_that_speaks_tls_has_a_certificate(home: Path) -> None:
    """Without one it is none, and one that does not takes none."""
    for tls in (None, {"ca": "a"}):
        with pytest.raises(ValueError, match=r"a server at tls://127.0.0.1:0 shows a certificate: .*--tls-cert F"):
            ManagerServer("tls://127.0.0.1:0", tls=tls)
    assert served_tls(None, parse("tcp://127.0.0.1:0")) is None


def test_the_environment_names_what_clients_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One without the other is as wrong there."""
    assert environment_tls() == TlsFiles()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGISTRY_TLS_CA", "ca.pem")
    assert environment_tls() == TlsFiles(ca=str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REGISTRY_TLS_CERT", "/a.pem")
    with pytest.raises(ValueError, match="the environment has a cert of TLS and no key"):
        environment_tls()
    monkeypatch.setenv("REGISTRY_TLS_KEY", "/a.key")
    assert environment_tls() == TlsFiles("/a.pem", "/a.key", str(tmp_path / "ca.pem"))


def test_a_change_of_a_file_shows(tmp_path: Path) -> None:
    """Its content, another one in its place, and its end; files that are not named never do."""
    path = tmp_path / "ca"
    files = TlsFiles(ca=str(path))
    seen = [files.stamp()]
    path.write_text("one")
    seen.append(files.stamp())
    assert files.stamp() == seen[-1]
    (tmp_path / "new").write_text("two")
    os.replace(tmp_path / "new", path)
    seen.append(files.stamp())
    assert len(set(seen)) == 3
    assert TlsFiles().stamp() == ()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """With what it was to be."""
    with pytest.raises(AccessDenied, match=f"the certificate is not there: {tmp_path}/none"):
        check_file(f"{tmp_path}/none", "the certificate")
    with pytest.raises(AccessDenied, match=f"the certificate {tmp_path} is no plain file"):
        check_file(str(tmp_path), "the certificate")
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(AccessDenied, match="is no plain file"):
            check_file(f"{tmp_path}/pipe", "the certificate")


@posix
def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """As the file of a key of ours is: its group may read it, and nobody may write it or else read it."""
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    for mode in (0o644, 0o604, 0o620, 0o660):
        path.chmod(mode)
        with pytest.raises(AccessDenied, match=rf"is open to others \(mode {mode:o}\).*: chmod 600 {path}"):
            check_file(str(path), "the private key", secret=True)
        assert check_file(str(path), "the certificate") == b"secret"
    for mode in (0o600, 0o400, 0o640):
        path.chmod(mode)
        assert check_file(str(path), "the private key", secret=True) == b"secret"
