"""What an end of TLS shows and whom it believes, as it stands in its files."""

from __future__ import annotations

import hashlib
import logging
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from registry._addresses import TlsFiles, check_file
from registry._tls._layer import Layer
from registry.errors import AccessDenied, RegistryError

log = logging.getLogger("registry")

LOOK = 1.0  # seconds between two looks at the files of a server, at least

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return what a client goes by: the server must have a certificate of its name, signed by whom the client believes.

    Args:
        files: Without a `ca`, those are believed that the system believes.

    Raises:
        AccessDenied: A file cannot be used.
    """
    if files.ca:
        _check_authorities(files.ca)
    with _usable(f"the certificates of CAs in {files.ca}"):
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=files.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.cert:
        _show(context, files)
    return context


class Credentials:
    """What a server goes by, as it stood in its files at one time.

    Attributes:
        binding: What binds a handshake of the key to connections with this certificate.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Read the files.

        Args:
            files: With a `ca`, clients must show a certificate that one of these has signed.

        Raises:
            AccessDenied: A file cannot be used.
        """
        if files.ca:
            _check_authorities(files.ca)
        with _usable(f"the certificates of CAs in {files.ca}"):
            self._context = context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if files.ca:
            context.verify_mode = ssl.CERT_REQUIRED
        # A process connects once for its life, so that a shortened handshake would shorten nothing.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        self.binding = binding_of(_show(context, files))

    def layer(self) -> Layer:
        """Return the layer of a new connection."""
        return Layer(self._context)


class Renewed:
    """The credentials of a server that runs: read again when the files change, as long as they can be used.

    Attributes:
        files: Where they are read.
    """

    def __init__(self, files: TlsFiles, label: str, now: Callable[[], float] = monotonic) -> None:
        """Read the files for the first time.

        Args:
            files: Where they are.
            label: How people call the server.
            now: A clock that does not run backwards, in seconds.

        Raises:
            AccessDenied: A file cannot be used.
        """
        self.files = files
        self._label = label
        self._now = now
        self._looked = now()
        self._stamp = files.stamp()  # before they are read: what is written meanwhile is read again
        self._current = Credentials(files)

    def current(self) -> Credentials:
        """Return what a connection that begins now is to go by."""
        now = self._now()
        if now - self._looked >= LOOK:
            self._looked = now
            stamp = self.files.stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                self._renew()
        return self._current

    def _renew(self) -> None:
        try:
            self._current = Credentials(self.files)
        except AccessDenied as error:
            log.error("%s goes on with the certificate that it has: %s", self._label, error.reason)
        else:
            log.info("%s has read its certificate again, and shows it from now on", self._label)


def binding_of(certificate: bytes) -> bytes:
    """Return what binds a handshake to the connections of a server.

    Args:
        certificate: The server's, in DER.
    """
    return b"tls-server-end-point:" + hashlib.sha256(certificate).digest()


def _show(context: ssl.SSLContext, files: TlsFiles) -> bytes:
    """Have the certificate and its key shown; return the certificate in DER."""

    def refuse() -> str:
        raise AccessDenied(
            f"the private key {files.key} is locked by a passphrase, and nobody is there to type it: "
            f"openssl pkey -in {files.key} -out KEY writes it without"
        )

    before = None
    # OpenSSL reads the file by itself, which may be another one by then: what is bound must be what is shown.
    while (content := check_file(files.cert, "the certificate")) != before:
        before = content
        certificate = _CERTIFICATE.search(content)
        if certificate is None:
            raise AccessDenied(f"there is no certificate in {files.cert}: name the file that has it, in PEM")
        if _PRIVATE_KEY.search(check_file(files.key, "the private key", secret=True)) is None:
            raise AccessDenied(f"there is no private key in {files.key}: name the file that has it, in PEM")
        with _usable(f"the certificate {files.cert} and the private key {files.key}"):
            context.load_cert_chain(files.cert, files.key, refuse)
            shown = ssl.PEM_cert_to_DER_cert(certificate.group().decode("ascii", "replace"))
    return shown


def _check_authorities(path: str) -> None:
    if _CERTIFICATE.search(check_file(path, "the file of the CA")) is None:
        raise AccessDenied(f"there is no certificate in {path}: name the file that has those of the CAs, in PEM")


@contextmanager
def _usable(what: str) -> Iterator[None]:
    """Tell what OpenSSL finds wrong with files in words that name them."""
    try:
        yield
    except RegistryError:
        raise
    except (OSError, ValueError) as error:  # those of OpenSSL are of both
        reason = getattr(error, "reason", None) or str(error)
        if reason == "KEY_VALUES_MISMATCH":
            raise AccessDenied(
                f"{what} do not belong together: name the key that the certificate was made for"
            ) from error
        raise AccessDenied(f"{what} cannot be used: {reason.lower().replace('_', ' ')}") from error
