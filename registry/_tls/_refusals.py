"""What it means when a TLS handshake fails, for people: which of the two is at fault, and what helps.

OpenSSL tells an end why it refuses the other (`ssl.SSLCertVerificationError`), and the other by an *alert*, a word or
two. With TLS 1.3 a client hears of an alert only after its own handshake is done, at its first read.
"""

from __future__ import annotations

import ssl

from registry._addresses import TlsFiles
from registry.errors import AccessDenied

# X509_V_ERR_* of OpenSSL's x509_vfy.h; the `ssl` module has no names for them.
_EXPIRED = 10
_NOT_YET_VALID = 9
_UNKNOWN_CA = frozenset((2, 18, 19, 20, 21))
_OTHER_NAME = frozenset((62, 63, 64))

_OWN_CERT = '"cert" and "key" in tls=, REGISTRY_TLS_CERT and REGISTRY_TLS_KEY, or --tls-cert and --tls-key'
_CLOCK = "or set the clock of this machine right"


def refused_server(error: ssl.SSLError, host: str, files: TlsFiles) -> str:
    """Return why a client gets no connection: it refuses the server, or the server refuses it.

    Args:
        error: What the client's end has raised.
        host: Whose certificate the server was to show.
        files: What the client goes by.

    Returns:
        A text with the cure; empty where neither certificate is the reason.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _why_not_believed(error, host, files)
    alert = _alert(error)
    if alert == "certificate required" or (alert == "handshake failure" and not files.cert):
        return f"the server lets in only who shows a certificate, and none was shown: name its files by {_OWN_CERT}"
    if not files.cert:
        return ""
    if alert == "unknown ca":
        return (
            f"the server does not know the CA that has signed {files.cert}: show a certificate of the CA that the "
            "server was given (serve --tls-ca)"
        )
    if alert == "certificate expired":
        return f"the server finds that the certificate {files.cert} has expired: renew it"
    if alert in ("bad certificate", "certificate unknown", "unsupported certificate", "certificate revoked"):
        return (
            f"the server does not accept the certificate {files.cert} ({alert}), which may not be valid yet, or not be "
            "made for clients: look into the server's log, and make another one"
        )
    return ""


def _why_not_believed(error: ssl.SSLCertVerificationError, host: str, files: TlsFiles) -> str:
    code, text = error.verify_code, error.verify_message
    if code == _EXPIRED:
        return f"the certificate of the server has expired: renew it there, {_CLOCK}"
    if code == _NOT_YET_VALID:
        return f"the certificate of the server is not valid yet: {_CLOCK[3:]}, or that of whoever made it"
    if code in _OTHER_NAME:
        return (
            f"the certificate of the server is for other names than {host!r}: connect by a name that it has, or make "
            "one that has this name, too"
        )
    if code in _UNKNOWN_CA:
        believed = f"by no CA in {files.ca}" if files.ca else "by no CA that this system believes"
        return (
            f"the certificate of the server is signed {believed} ({text}): name the file with the certificate of its "
            'CA by "ca" in tls=, REGISTRY_TLS_CA or --tls-ca'
        )
    return f"the certificate of the server is refused: {text}"


def is_refusal(error: BaseException | None) -> bool:
    """Tell whether an end refuses the other for its certificate, and not for its key."""
    return isinstance(error, AccessDenied) and isinstance(error.__cause__, ssl.SSLError)


def refused_client(error: ssl.SSLError) -> str:
    """Return why a server lets a client not in, for its log.

    Args:
        error: What the server's end has raised.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        code, text = error.verify_code, error.verify_message
        if code == _EXPIRED:
            return "its certificate has expired"
        if code == _NOT_YET_VALID:
            return "its certificate is not valid yet"
        if code in _UNKNOWN_CA:
            return f"its certificate is signed by another CA ({text})"
        return f"its certificate is not accepted ({text})"
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "it shows no certificate, and one is asked for"
    alert = _alert(error)
    if alert:
        return f"it does not accept this server's certificate ({alert})"
    if error.reason in ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL"):
        return "it speaks no TLS"
    if error.reason in ("UNSUPPORTED_PROTOCOL", "NO_SHARED_CIPHER"):
        return f"it speaks no TLS that is safe today ({_words(error)})"
    return f"its TLS handshake cannot be read ({_words(error)})"


def _alert(error: ssl.SSLError) -> str:
    """Return the alert that a peer has sent, such as ``unknown ca``; empty where it is no such error."""
    _, is_alert, alert = (error.reason or "").partition("ALERT_")
    return alert.lower().replace("_", " ") if is_alert else ""


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
