"""Messages of the stock protocol: unpickled with care, and made for old clients."""

from __future__ import annotations

import builtins
import io
import pickle
import queue
import threading
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Any, Final

from registry import _addresses, _codec
from registry._framing import BadMessage, frame
from registry._leaves import Carried, Grant, Handle, OpaqueValue
from registry.errors import NotShareable, RegistryError, RemoteError

# What every Python since 3.4 reads; clients may be older than this interpreter.
PROTOCOL: Final = 4

# Requests


class ProxyOf:
    """A proxy inside a value. Pickled for a stock client it is a stock proxy again."""

    __slots__ = ("address", "exposed", "ident", "typeid")

    def __init__(self, address: Any, typeid: str, ident: str, exposed: tuple[str, ...] | None) -> None:
        self.address = address
        self.typeid = typeid
        self.ident = ident
        self.exposed = exposed

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.managers import AutoProxy, RebuildProxy, Token  # type: ignore[attr-defined]

        token = Token(self.typeid, self.address, self.ident)
        return RebuildProxy, (AutoProxy, token, "pickle", {"exposed": self.exposed})


class _Unpickler(pickle.Unpickler):
    """Unpickle a request, but not what would connect to this very server, or wait for another process."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("multiprocessing."):
            if module != "multiprocessing.managers":
                raise NotShareable(f"{module}.{name}", "it belongs to the process that made it")
            if name == "RebuildProxy":
                return _rebuild_proxy
        return super().find_class(module, name)


def _rebuild_proxy(function: object, token: Any, serializer: str, kwds: dict[str, Any]) -> ProxyOf:
    # The stock function would connect to the server, which is us, who are busy unpickling.
    exposed = kwds.get("exposed")
    return ProxyOf(token.address, token.typeid, token.id, None if exposed is None else tuple(exposed))


def load(message: bytes) -> tuple[Any, str, tuple[Any, ...], dict[str, Any]]:
    """Unpickle a request. Only for peers that may run code here.

    Raises:
        BadMessage: it is none.
        Exception: whatever the classes of the values raise.
    """
    request = _Unpickler(message).load()
    if not (isinstance(request, tuple) and len(request) == 4):
        raise BadMessage("a request is (ident, name, args, kwds)")
    ident, name, args, kwds = request
    if type(name) is not str or not isinstance(args, (tuple, list)) or type(kwds) is not dict:
        raise BadMessage("a request is (ident, name, args, kwds)")
    return ident, name, tuple(args), kwds


def outgoing(here: Any) -> Callable[[object], object]:
    """Return what makes handles of the proxies in a request; `here` is our own address in the stock form."""

    def leaf(value: object) -> object:
        if type(value) is not ProxyOf:
            return NotImplemented
        if value.address == here:
            typeid, _, name = value.ident.partition(":")
            return Handle("", typeid, name)
        path = isinstance(value.address, str)
        if not (path or (isinstance(value.address, tuple) and len(value.address) == 2)):
            return NotImplemented
        url = f"stock+unix://{value.address}" if path else "stock+tcp://{}:{}".format(*value.address)
        return Handle(url, value.typeid, value.ident)

    return leaf


def opaque(domain: str) -> Callable[[object], Carried] | None:
    """Return what keeps a value that has no typed form; None for a peer that is in no trust domain."""
    if not domain:
        return None

    def seal(value: object) -> Carried:
        cls = type(value)
        kind = f"{cls.__module__}.{cls.__qualname__}"
        try:
            return Carried(pickle.dumps(value, PROTOCOL), domain, kind)
        except Exception as error:
            raise NotShareable(f"a {kind}", f"it has no typed form and cannot be pickled: {error}") from error

    return seal


# Replies


class _Sealed:
    """A value that was kept as a pickle. The client opens it; we never do."""

    __slots__ = ("carried", "kind")

    def __init__(self, carried: Carried) -> None:
        self.carried = carried
        self.kind = carried.kind

    def __reduce__(self) -> tuple[Any, ...]:
        pickled, buffers = _codec.split_pickle(self.carried)
        if not buffers:
            return pickle.loads, (bytes(pickled),)
        # What stands outside of the pickle goes with it; it is the client's own from then on.
        return partial(pickle.loads, buffers=list(map(bytearray, buffers))), (bytes(pickled),)

    def __repr__(self) -> str:
        return f"<{self.kind}>"


def incoming(
    domain: str,
    here: Any,
    url: str,
    exposed: Callable[[str], tuple[str, ...] | None],
    trusted: Container[str] = (),
) -> Callable[[Any], object]:
    """Return what puts values that a stock client can have in the place of ours.

    Args:
        domain: the reader's trust domain.
        here: this server's address in the stock form, and `url`.
        exposed: tells what a type of this server exposes.
        trusted: further domains whose values a reader with a domain can have.
    """

    def value_of(leaf: Any) -> object:
        if type(leaf) is Carried:
            if not leaf.domain:
                return _codec.decode_carried(leaf, value_of)
            if leaf.domain == domain or (domain and leaf.domain in trusted):
                return _Sealed(leaf)
            leaf = OpaqueValue(leaf.kind, leaf.domain)
        if type(leaf) is OpaqueValue:
            raise NotShareable(f"a {leaf.kind}", f"only processes of its writer's user ({leaf.writer}) can read it")
        if type(leaf) is Grant:
            return bool(leaf)
        if type(leaf) is Handle:
            if leaf.address in ("", url):
                return ProxyOf(here, leaf.typeid, str(leaf), exposed(leaf.typeid))
            address = _addresses.parse(leaf.address)
            ident = leaf.name if address.kind.startswith("stock+") else str(leaf)
            return ProxyOf(address.stock_form, leaf.typeid, ident, None)
        return leaf

    return value_of


def message(kind: str, value: object) -> bytes:
    """Return a framed answer."""
    try:
        return frame(pickle.dumps((kind, value), PROTOCOL))
    except Exception as error:  # noqa: BLE001 - whatever the values' classes raise, the client waits for an answer
        return message("#TRACEBACK", f"{kind} cannot be pickled: {type(error).__name__}: {error}\n")


# Written out, because these classes are pickled by the name of a module that Python 3.6 does not have.
_QUEUE_ERRORS: Mapping[type[BaseException], bytes] = {
    cls: frame(b"\x80\x02X\x06\x00\x00\x00#ERRORcqueue\n" + name + b"\n)R\x86.")
    for cls, name in ((queue.Empty, b"Empty"), (queue.Full, b"Full"))
}

# Builtin exceptions that Python 3.6 has no class for.
_NEWER = frozenset(
    "BaseExceptionGroup EncodingWarning ExceptionGroup PythonFinalizationError _IncompleteInputError".split()
)


def failure(error: BaseException, server: str) -> bytes:
    """Return the framed answer that raises an error in the client.

    A builtin exception goes as itself. One of ours, which the client may not have, goes as the builtin that
    it is also one of, with its text; where there is none, the client raises its own
    `multiprocessing.managers.RemoteError`.
    """
    constant = _QUEUE_ERRORS.get(type(error))
    if constant is not None:
        return constant
    if isinstance(error, RegistryError):
        located = error.located(server)
        base = _builtin(located)
        if base is None:
            text = (isinstance(located, RemoteError) and located.traceback) or str(located)
            return message("#TRACEBACK", f"{text.rstrip()}\n")
        error = base(str(located))
    elif type(error) is threading.BrokenBarrierError:
        pass  # every client has it
    elif vars(builtins).get(type(error).__name__) is not type(error) or type(error).__name__ in _NEWER:
        base = _builtin(error)
        if base is None:
            return message("#TRACEBACK", f"{type(error).__name__}: {error}\n")
        error = base(str(error))
    return message("#ERROR", error)


def _builtin(error: BaseException) -> type[Exception] | None:
    """Return the nearest builtin class of an error that says more than that it is one."""
    for cls in type(error).__mro__:
        if vars(builtins).get(cls.__name__) is cls and cls.__name__ not in _NEWER:
            return cls if issubclass(cls, Exception) and cls is not Exception else None
    return None
