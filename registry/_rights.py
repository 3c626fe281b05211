"""What a role may do: the one table of what can be asked of a server, and what is said to those who may not.

A connection has the role of the key that its peer has shown, and may be lowered by the peer's certificate. A session
has that of its first connection, for good: one that comes back by the key of another role is refused, so that nothing
is kept that the new role could not have, and nothing is gained.

Of three roles each may what those before it may:

- ``read`` looks, and leaves no trace: no event, no object, no place in a line.
- ``write`` uses what is shared, as programs do that work together.
- ``admin`` takes things from others, and ends them. It is what the key of a server's directory gives.

What a denied call asks for does not happen, in part neither: it is denied before its object is looked for. Only the
number of its handle is known afterwards, since the client goes on to use that, and that it was denied, until the client
says that it has heard so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs

from registry._auth import ROLES
from registry._wire import DELETE, OPERATORS
from registry.declarations import SharedObject
from registry.errors import AccessDenied

READ, WRITE, ADMIN = ROLES


@attrs.frozen
class Verb:
    """What can be asked of a server.

    Attributes:
        where: ``"frame"`` of a native client, ``"call"`` of an object by any client, ``"question"`` to the server
            itself, or ``"stock"``, a function of a `multiprocessing` server.
        name: What it is on the wire; a call that has no name of its own is told in words.
        role: The least that may ask it.
        effect: What it does for that role.
    """

    where: str
    name: str
    role: str
    effect: str


VERBS = (
    Verb("call", "methods declared readonly", READ, "answered, and may be cached; a name that nothing has is an error"),
    Verb("call", "other methods", WRITE, "made once; may change, wait and hold, and makes the object at its first use"),
    Verb("call", "#delete of what each call makes", WRITE, "ends what nobody finds by a name of its own"),
    Verb("call", "#delete", ADMIN, "ends an object, with the waits in it and the grants of it"),
    Verb("call", "#release", ADMIN, "takes a grant from its holder"),
    Verb("frame", "ATTACH", READ, "begins a session, or goes on with one of the same role"),
    Verb("frame", "CALL", READ, "as the method says, above"),
    Verb("frame", "READ", READ, "as CALL, with a reply that may be cached"),
    Verb("frame", "CANCEL", READ, "settles a call of one's own; that of a reader had no effect, and leaves none"),
    Verb("frame", "OWNER_ENDED", READ, "gives back what a thread of one's own holds; a reader's holds nothing"),
    Verb("frame", "CONTROL", READ, "as the question says, below"),
    Verb("frame", "HEARTBEAT", READ, "answered"),
    Verb("frame", "GOODBYE", READ, "ends one's own session"),
    Verb("question", "status", READ, "answered; paths of the server are left out for those outside"),
    Verb("question", "about", READ, "answered; paths of the server are left out for those outside"),
    Verb("question", "objects", READ, "answered"),
    Verb("question", "statistics", READ, "answered"),
    Verb("question", "locks", READ, "answered"),
    Verb("question", "log", ADMIN, "closes the segment of the log, and tells where its files are"),
    Verb("question", "stop", ADMIN, "stops the server"),
    Verb("stock", "accept_connection", READ, "takes calls; each as the method says, above"),
    Verb("stock", "create", READ, "finds an object; one that is not there takes `write`"),
    Verb("stock", "incref", READ, "counts a proxy, of a reader none: it keeps nothing alive"),
    Verb("stock", "decref", READ, "lets go of a proxy, with the last one of what a call has made; of a reader none"),
    Verb("stock", "get_methods", READ, "answered"),
    Verb("stock", "number_of_objects", READ, "answered"),
    Verb("stock", "debug_info", READ, "answered"),
    Verb("stock", "dummy", READ, "answered"),
    Verb("stock", "#GETVALUE", READ, "as the readonly method that tells the content"),
    Verb("stock", "__str__", READ, "as #GETVALUE; where there is none, the name"),
    Verb("stock", "__repr__", READ, "as #GETVALUE; where there is none, the name"),
    Verb("stock", "shutdown", ADMIN, "stops the server, for processes of its own user"),
)

_LEAST = {(verb.where, verb.name): verb.role for verb in VERBS}


def least(where: str, name: str) -> str:
    """Return the least role that may ask something; what is in no row takes all rights."""
    return _LEAST.get((where, name), ADMIN)


def least_for(method: str, readonly: Collection[str], declaration: SharedObject[Any] | None) -> str:
    """Return the least role that may call a method of an object.

    Args:
        method: As it stands in the call.
        readonly: The methods without effect of its type.
        declaration: Its type, where there is one of that name.
    """
    if method in readonly:
        return least("call", "methods declared readonly")
    if method in OPERATORS:
        is_of_call = method == DELETE and declaration is not None and declaration.per == "call"
        return least("call", "#delete of what each call makes" if is_of_call else method)
    return least("call", "other methods")


def may(role: str, needed: str) -> bool:
    """Tell whether a role has the rights of another one."""
    return ROLES.index(role) >= ROLES.index(needed)


def lesser(*roles: str) -> str:
    """Return the one of some roles that may the least."""
    return min(roles, key=ROLES.index)


def denial(what: str, needed: str, role: str) -> AccessDenied:
    """Return what a peer is told that may not do something.

    Args:
        what: What it has asked for.
        needed: The least role that may.
        role: The one that it has.
    """
    able = " or ".join(repr(each) for each in ROLES if may(each, needed))
    return AccessDenied(
        f"{what} takes the role {needed!r}, and the key that this process has shown gives {role!r}; nothing was done. "
        f"Connect with a key that gives {able}: by authkey=, or by the file that REGISTRY_AUTHKEY_FILE names"
    )


def other_role(had: str, has: str) -> str:
    """Return what a session is told that comes back by the key of another role."""
    return (
        f"this session has the role {had!r}, and the key that was shown now gives {has!r}; it is not taken over. "
        "Connect again by the former key, or close this client and begin anew"
    )


def not_made(title: str) -> str:
    """Return why nothing has a name that a reader has used."""
    return (
        f"nothing has that name, and the role 'read' makes nothing; whoever writes to {title} first makes it, with a "
        "key that gives 'write' or 'admin'"
    )


# Certificates

NO_ROLE = (
    "the certificate that this process has shown has none of the names that have a role on the server; show another "
    "one, or have the operator give the name a role (registry serve --certificate NAME=ROLE)"
)


def checked(named: Mapping[str, str], are_asked_for: bool) -> dict[str, str]:
    """Return roles by the names in certificates.

    Args:
        named: As an operator has given them.
        are_asked_for: Whether the server asks its clients for certificates, and verifies them.

    Raises:
        ValueError: There is no such role, a name is of no kind, or nobody shows a certificate.
    """
    for name, role in named.items():
        kind, colon, value = name.partition(":")
        if not (kind and colon and value):
            raise ValueError(f"certificates has names with their kind, such as 'CN:dashboard', not {name!r}")
        if role not in ROLES:
            raise ValueError(f"certificates gives the roles {', '.join(map(repr, ROLES))}, not {role!r}")
    if named and not are_asked_for:
        raise ValueError("certificates has roles by names, and no client is asked for one: give a 'ca' of tls")
    return dict(named)


def of_certificate(certificate: Mapping[str, Any], named: Mapping[str, str]) -> str | None:
    """Return the role that the certificate of a peer gives, None where it has no name that is known here.

    Several names of one certificate may be known; then the least of their roles counts. Names are compared exactly, and
    without a wildcard: a certificate that is good for any name of a domain is not somebody.

    Args:
        certificate: What ``ssl.SSLSocket.getpeercert()`` has returned: of a certificate that was verified.
        named: Roles by names, such as ``"CN:dashboard"``, ``"DNS:web1.example.org"`` or
            ``"URI:spiffe://example.org/jobs"``.
    """
    known = [named[name] for name in names_in(certificate) if name in named]
    return lesser(*known) if known else None


def names_in(certificate: Mapping[str, Any]) -> Iterator[str]:
    """Return the names in a certificate, each behind its kind: those of its subject, and the alternative ones."""
    for row in certificate.get("subject", ()):
        for kind, value in row:
            if kind == "commonName":
                yield f"CN:{value}"
    for kind, value in certificate.get("subjectAltName", ()):
        if isinstance(value, str):  # a directory name is a row of pairs, which has no one spelling
            yield f"{kind}:{value}"
