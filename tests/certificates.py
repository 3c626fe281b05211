"""Certificates for tests, each made when it is needed, by a CA of the tests."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import trustme

HOST = "127.0.0.1"
DAY = datetime.timedelta(days=1)


class Authority:
    """A CA, with the files of what it has signed.

    Args:
        directory: Where the files are put.
    """

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self._directory = directory
        self._number = 0
        directory.mkdir(exist_ok=True)
        self.ca = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, *names: str, name: str = "", **options: Any) -> dict[str, str]:
        """Return the files of a new certificate, as `tls=` takes them, with this CA's.

        Args:
            names: The hosts that it is for, or who; without any the host of the tests.
            name: What the files are called; those of another certificate of that name are replaced.
            options: More of it, as `trustme.CA.issue_cert` takes it, such as ``not_after``.
        """
        leaf = self._ca.issue_cert(*names or (HOST,), **options)
        self._number += 1
        name = name or str(self._number)
        cert, key = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key.touch(mode=0o600)
        key.write_bytes(leaf.private_key_pem.bytes())
        return {"cert": str(cert), "key": str(key), "ca": str(self.ca)}

    def trusted(self) -> dict[str, str]:
        """Return the `tls=` of a client that shows no certificate."""
        return {"ca": str(self.ca)}


def served(files: dict[str, str]) -> dict[str, str]:
    """Return the `tls=` of a server that asks for no certificate."""
    return {name: files[name] for name in ("cert", "key")}


def now() -> datetime.datetime:
    """Return the time as certificates tell it."""
    return datetime.datetime.now(datetime.timezone.utc)


def replace(files: dict[str, str], others: dict[str, str]) -> None:
    """Put the files of one certificate in the place of another's, as those who renew them do: each at once."""
    for name in ("cert", "key"):
        os.replace(others[name], files[name])
