"""What is kept from outsiders: peers that are neither operators of the server nor processes of its user on its host.

They use what is shared, and are told what is wrong with their calls. What goes on inside of the server is not theirs to
know: where its files lie, what its code is, what its tracebacks show.

- An exception of a class that does not cross is a defect, as far as anybody can tell from outside. An outsider gets a
  `RemoteError` with the name of its class and a number, under which the operator finds all of it in the server's log.
- Builtin exceptions, those of `queue` and of this package are what methods say to their callers. They keep class and
  text. Notes and tracebacks stay in the log; so do paths, but for those that the caller has said itself in that call:
  the key of a `KeyError` may be one.

The number is hashed from the call, so that a reply which is sent again has the same, by a key that nobody outside
knows: what is withheld cannot be guessed from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from registry import _codec
from registry._leaves import Parts
from registry._rights import ADMIN
from registry._wire import SMALL
from registry.errors import RemoteError

if TYPE_CHECKING:
    from registry._attachments import Client
    from registry._events import Call, Output

REMEMBERED = 1024  # numbers of errors
PATH = "<path>"
_TRACE = ("Traceback (most recent call last)", 'File "')
_PLAIN = r"[^\s'\"`,;:()\[\]{}<>|]"
_START = r"(?:/(?!/)|[A-Za-z]:[\\/]|\\\\|~(?:[A-Za-z][\w.-]*)?/|\.{1,2}[\\/])"

# What looks like a path. Not an address such as https://example.org/page, nor text/html.
_PATHS = re.compile(
    rf"(?<=')(?={_START})[^'\n]{{2,}}(?=')"  # all that is quoted, with its spaces
    rf'|(?<=")(?={_START})[^"\n]{{2,}}(?=")'
    rf"|\b[A-Za-z][\w+.-]*:///{_PLAIN}*"  # an address of this machine: file:///srv, unix:///run/x
    rf"|(?<![\w.:/\\-])//+\w{_PLAIN}*"
    rf"|(?<![\w./\\-]){_START}{_PLAIN}+"
    r"|(?<![\w./\\:-])[\w.+-]+(?:[/\\][\w.+-]+)*[/\\][\w+-]+\.[A-Za-z]\w{0,7}\b"  # data/x.db
)


def is_insider(role: str, domain: str) -> bool:
    """Tell whether a peer may see into the server: an operator, or a process of its user on its host."""
    return role == ADMIN or bool(domain)


def without_paths(text: str, said: bytes = b"") -> str:
    """Return a text without the paths in it, but for those that stand in what the reader has said itself."""

    def replace(found: re.Match[str]) -> str:
        path = found[0]
        return path if path.encode("utf-8", "surrogatepass") in said else PATH

    return _PATHS.sub(replace, text)


def public(identity: dict[str, Any]) -> dict[str, Any]:
    """Return what a server says of itself, for outsiders: a place that is a path has no name but theirs for it."""
    told = {**identity, "files": "", "realm": ""}
    if ":///" in told["address"]:
        told["address"] = "" if told["name"] == told["address"] else told["name"]
        told["name"] = told["address"]
    told["plugins"] = {without_paths(name): version for name, version in told["plugins"].items()}
    return told


def public_about(told: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to the question `about` for outsiders, which is that files have changed, and how many."""
    return {"python": "", "state": "", "code": {}, "changed": ["a file of a plugin"] * len(told["changed"])}


def remembered(call: Call) -> Call:
    """Return a call as far as errors may have to be compared with it: large arguments are not kept for that."""
    if isinstance(call.arguments, bytes) and len(call.arguments) <= SMALL:
        return call
    return msgspec.structs.replace(call, arguments=b"")


def number_of(key: bytes, *material: bytes) -> str:
    """Return the number by which an outsider and the log name one error."""
    digest = hashlib.blake2b(b"/".join(material), key=key[:64], digest_size=4)
    return f"error {digest.hexdigest()}"


def disclosed(body: bytes | Parts, number: str, said: bytes) -> tuple[bytes | Parts, str]:
    """Return what an outsider is told in the place of an error, and what the log is told of it.

    Args:
        body: The error, encoded.
        number: From `number_of`.
        said: What the outsider has said in the call that it answers, as far as that is known.

    Returns:
        The encoded error, and a text with everything; the text is empty where nothing is withheld.
    """
    veil = _Veil(number, said)
    try:
        error = _codec.decode(body)
        if not isinstance(error, BaseException):
            return body, ""
        told = veil.of_error(error)
        return (_codec.encode_exception(told), _in_full(error)) if veil.has_hidden else (body, "")
    except Exception as failure:  # noqa: BLE001 - what a class that a plugin declares says when it is made again
        told = RemoteError("", "an error that cannot be read", veil.more)
        return _codec.encode_exception(told), f"an error that cannot be read again: {failure!r}"


class Discretion:
    """What one server says to outsiders of errors, and to its log.

    Args:
        key: What the numbers of errors are hashed with; secret.
        log: Told of what is withheld, once for each error.
    """

    def __init__(self, key: bytes, log: Callable[[str], None] | None) -> None:
        self._key = key
        self._log = log
        self._numbers: dict[str, None] = {}  # that the log was told of last

    def told(self, client: Client, output: Output) -> Output:
        """Return the output that an outsider gets in the place of one that may tell of an error."""
        body, last = output.body, client.last
        number = number_of(self._key, client.key, b"%d" % output.seq, _head(body))
        said, who = b"", client.label
        if last is not None:
            said = b"%b %b" % (last.name.encode("utf-8", "surrogatepass"), _head(last.arguments))
            if last.seq == output.seq:
                who = f"{who}, who has called {last.typeid}:{last.name}.{last.method}()"
        shown, full = disclosed(body, number, said)
        if not full:
            return output
        if self._log is not None and number not in self._numbers:
            self._numbers[number] = None
            if len(self._numbers) > REMEMBERED:
                del self._numbers[next(iter(self._numbers))]
            self._log(f"{number}, kept from {who}: {_indented(full)}")
        return msgspec.structs.replace(output, body=shown)


def _indented(text: str) -> str:
    """Return what others have a part in, so that it can neither pass for a line of the log nor steer a terminal."""
    lines = text.splitlines()
    return "\n    ".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)


def _head(body: bytes | Parts) -> bytes:
    return body.head if isinstance(body, Parts) else body


class _Veil:
    """Makes of an error what outsiders may see of it; tells whether there was more."""

    def __init__(self, number: str, said: bytes) -> None:
        self.number = number
        self.said = said
        self.has_hidden = False

    def of_error(self, error: BaseException) -> BaseException:
        """Return the error without what is inside."""
        if isinstance(error, RemoteError) and (error.traceback or not error.call):  # our own name the call
            self.has_hidden = True
            return RemoteError(error.call, error.type_name, self.more)
        args = [self.of(arg) for arg in _codec.exception_arguments(error)]
        notes = getattr(error, "__notes__", None)
        if not notes and not self.has_hidden:
            return error
        self.has_hidden = True
        try:
            told: BaseException = type(error)(*args)
        except Exception:  # noqa: BLE001 - a class that cannot be made of other texts than its own
            return RemoteError("", type(error).__name__, self.more)
        told.__dict__["__notes__"] = [self.more]
        return told

    @property
    def more(self) -> str:
        """What stands in the place of what is not told."""
        return f"{self.number}; the log of the server tells more under this number"

    def of(self, value: Any) -> Any:
        """Return a value of an error without what is inside."""
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is bytes:
            text = value.decode("latin-1")
            told = self._text(text)
            return value if told is text else told.encode("latin-1")
        if kind in (list, tuple, set, frozenset):
            return kind(map(self.of, value))
        if kind is dict:
            return {self.of(key): self.of(item) for key, item in value.items()}
        return self.of_error(value) if isinstance(value, BaseException) else value

    def _text(self, text: str) -> str:
        told = self.more if any(mark in text for mark in _TRACE) else without_paths(text, self.said)
        if told == text:
            return text
        self.has_hidden = True
        return told


def _in_full(error: BaseException) -> str:
    """Return an error as the log is told of it."""
    if isinstance(error, RemoteError):
        lines = [f"{error.type_name}: {error.message}", error.traceback]
    else:
        name = type(error).__qualname__
        lines = [f"{name}: {error}", f"made of {_codec.exception_arguments(error)!r}"]
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    return "\n".join(line.rstrip() for line in (*lines, *notes) if line)
