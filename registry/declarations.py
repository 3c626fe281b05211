"""What is shared: the record that declares a type, and the row of it that clients are told.

A plugin returns `SharedObject` records from its one hook; a class need not know that it is shared. Every
mistake that can be seen in a record is reported when the record is made, by the module that made it.

The server sends each client one `Interface` per typeid, and the client builds its proxies from that alone.
It crosses the wire as a list, ``Interface.pack()``, and is believed only as far as ``Interface.unpack`` has
checked it:

====  ===========  =====================================================================
item  name         value
====  ===========  =====================================================================
0     `typeid`     str, an identifier
1     `per`        ``"name"``, ``"server"`` or ``"call"``
2     `shape`      one of `SHAPES`, or None
3     `threaded`   bool
4     `exposed`    list of str: public names, and dunders of `DUNDERS`
5     `readonly`   list of str out of `exposed`
6     `waiting`    list of str out of `exposed`, none of them readonly
7     `carried`    dict of method to dict of parameter to position, -1 for keyword-only
8     `doc`        str, one line
9     `keyed`      list of str out of `exposed`; a server of an earlier version sends none
10    `owned`      bool; one of an earlier version sends none, which may be either
====  ===========  =====================================================================

A later version may append items; an earlier one ignores them.
"""

from __future__ import annotations

import functools
import keyword
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, MutableSet
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, get_origin, get_type_hints

import attrs

from registry.errors import DeclarationError, NotDurable

if TYPE_CHECKING:
    from inspect import Parameter

__all__ = ["DUNDERS", "ITERATING", "PERS", "RESERVED", "SHAPES", "Interface", "SharedObject", "ValueType"]

T_co = TypeVar("T_co", covariant=True)

Per = Literal["name", "server", "call"]
Shape = Literal["mapping", "sequence", "set", "queue", "lock", "semaphore", "rwlock", "condition"]

PERS: Final = ("name", "server", "call")
SHAPES: Final = ("mapping", "sequence", "set", "queue", "lock", "semaphore", "rwlock", "condition")

#: The only special methods that a proxy may have from a hosted class. The list is closed, so that no
#: declaration and no server can give a client's proxy a ``__reduce__``, a ``__del__`` or a ``__class__``.
DUNDERS: Final = frozenset(
    "__bool__ __call__ __contains__ __delitem__ __float__ __getitem__ __index__ __int__ __iter__ __len__ "
    "__reversed__ __setitem__".split()
)

#: Those that return iterators, which cannot cross; the server drains them within the call.
ITERATING: Final = frozenset({"__iter__", "__reversed__"})

#: Names of `ManagerClient` and of `multiprocessing.managers.BaseManager`, which a typeid would hide.
RESERVED: Final = frozenset(
    "address close connect delete get_server join listen objects open register shutdown start statistics".split()
)

# Called by the engine, hence not by clients unless `exposed` names them.
_ENGINE_METHODS = frozenset(
    "blocked_by came_back due frees gave_up gives_back holders holds load".split()
    + "owner_ended state statistics take_away take_back vacant went_away".split()
)

# Containers whose whole state is their content.
_CONTAINERS: tuple[type, ...] = (dict, list, set, deque, OrderedDict)

_MAPPING_READS = "__contains__ __getitem__ __iter__ __len__ __reversed__ copy get items keys values"
_SEQUENCE_READS = "__bool__ __contains__ __getitem__ __iter__ __len__ __reversed__ copy count index"
_SET_READS = (
    "__contains__ __iter__ __len__ copy difference intersection isdisjoint issubset issuperset "
    "symmetric_difference union"
)
_BUILTIN_READS: dict[type, str] = {
    dict: _MAPPING_READS,
    OrderedDict: _MAPPING_READS,
    list: _SEQUENCE_READS,
    deque: _SEQUENCE_READS,
    set: _SET_READS,
}
# Not those of a list: l[-1] and l[9] may be one item.
_BUILTIN_KEYED: dict[type, str] = {
    dict: "__contains__ __delitem__ __getitem__ __setitem__ get pop setdefault",
    OrderedDict: "__contains__ __delitem__ __getitem__ __setitem__ get pop setdefault",
    set: "__contains__ add discard remove",
}

# What keeps in an attribute what these keep where Python cannot see it.
_INSTEAD: dict[type, str] = {
    dict: "; derive it from collections.UserDict",
    list: "; derive it from collections.UserList",
}

# Where the primitives live that cannot be freed when the process that holds them dies.
_PRIMITIVES = {
    "threading": "registry_sync",
    "_thread": "registry_sync",
    "multiprocessing.context": "registry_sync",
    "multiprocessing.synchronize": "registry_sync",
    "asyncio": "registry_sync",
    "queue": "registry_queues",
    "_queue": "registry_queues",
    "multiprocessing.queues": "registry_queues",
}
_OURS = {
    "allocate_lock": "lock",
    "Lock": "lock",
    "lock": "lock",
    "RLock": "rlock",
    "_RLock": "rlock",
    "Queue": "queue",
    "SimpleQueue": "queue",
    "JoinableQueue": "queue",
    "Semaphore": "semaphore",
    "BoundedSemaphore": "bounded_semaphore",
    "Event": "event",
    "Condition": "condition",
    "Barrier": "barrier",
}

_CLASS_METHODS = (classmethod, types.ClassMethodDescriptorType)
# Methods that cannot be called as they stand in the body of a class.
_METHOD_DESCRIPTORS = (staticmethod, functools.partialmethod, functools.singledispatchmethod)

# Of code: CO_COROUTINE and CO_ASYNC_GENERATOR, and CO_GENERATOR, of `inspect`, which is not imported for it.
_AWAITED = 0x80 | 0x200
_GENERATES = 0x20
# What more than `ITERATING` may be a generator, which is read inside of the call, by shape.
_MAY_GENERATE: dict[str | None, frozenset[str]] = {"mapping": ITERATING | {"keys", "values", "items"}}

# What a row from a server may hold at most.
_MAX_NAME = 255
_MAX_NAMES = 2_000
_MAX_DOC = 1_000


@attrs.frozen
class Interface:
    """What a client knows of a type, derived from its declaration.

    Attributes:
        typeid: the name of the type, and of the client's attribute.
        per: ``"name"``, ``"server"`` or ``"call"``, as in `SharedObject`.
        shape: the client-side behaviour, one of `SHAPES`, or None.
        threaded: whether calls run on threads of their own.
        exposed: the methods that can be called, sorted.
        readonly: those without effect, sorted.
        waiting: those that may wait, sorted.
        carried: for each method with such parameters, their positions among its arguments (the object itself
            not counted), or -1 where a parameter is keyword-only.
        doc: the first line of the documentation, or an empty string.
        keyed: those that touch only what their first argument names, sorted.
        owned: whether a thread or task may hold something of an object, which is told when that ends.
    """

    typeid: str
    per: str = "name"
    shape: str | None = None
    threaded: bool = False
    exposed: tuple[str, ...] = ()
    readonly: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    carried: Mapping[str, Mapping[str, int]] = attrs.field(factory=dict, hash=False)
    doc: str = ""
    keyed: tuple[str, ...] = ()
    owned: bool = False

    def pack(self) -> list[object]:
        """Return the row as plain values for the wire."""
        return [
            self.typeid,
            self.per,
            self.shape,
            self.threaded,
            list(self.exposed),
            list(self.readonly),
            list(self.waiting),
            {method: dict(parameters) for method, parameters in self.carried.items()},
            self.doc,
            list(self.keyed),
            self.owned,
        ]

    @classmethod
    def unpack(cls, row: object) -> Interface:
        """Make an interface of a row from a peer, which is not trusted to have made it well.

        Raises:
            DeclarationError: the row breaks a rule that a declaration could not have broken.
        """
        if type(row) is not list or len(row) < 9:
            raise DeclarationError("row", "must be a list of at least 9 items", row)
        typeid, per, shape, threaded, exposed, readonly, waiting, carried, doc = row[:9]
        keyed = row[9] if len(row) > 9 else []
        owned = row[10] if len(row) > 10 else True
        _check_typeid(typeid)
        _check_choice("per", per, PERS)
        if shape is not None:
            _check_choice("shape", shape, SHAPES)
        for field, flag in (("threaded", threaded), ("owned", owned)):
            if type(flag) is not bool:
                raise DeclarationError(field, "must be a bool", flag)
        for field, names in (("exposed", exposed), ("readonly", readonly), ("waiting", waiting), ("keyed", keyed)):
            if type(names) is not list or len(names) > _MAX_NAMES:
                raise DeclarationError(field, f"must be a list of at most {_MAX_NAMES} names", names)
            for name in names:
                _check_method(field, name)
        _check_subsets("", exposed, readonly, waiting, keyed)
        if type(carried) is not dict:
            raise DeclarationError("carried", "must be a dict", carried)
        for method, parameters in carried.items():
            if method not in exposed:
                raise DeclarationError("carried", "must name exposed methods", method)
            if type(parameters) is not dict or len(parameters) > _MAX_NAMES:
                raise DeclarationError("carried", "must hold a dict of positions for each method", parameters)
            for parameter, position in parameters.items():
                if not _is_name(parameter):
                    raise DeclarationError("carried", "must name parameters by identifiers", parameter)
                if type(position) is not int or not -1 <= position <= _MAX_NAMES:
                    raise DeclarationError("carried", "must hold positions, or -1", position)
        if type(doc) is not str or len(doc) > _MAX_DOC or not (doc == "" or doc.isprintable()):
            raise DeclarationError("doc", f"must be one line of at most {_MAX_DOC} characters", doc)
        return cls(
            typeid=typeid,
            per=per,
            shape=shape,
            threaded=threaded,
            exposed=_ordered(exposed),
            readonly=_ordered(readonly),
            waiting=_ordered(waiting),
            carried={method: dict(parameters) for method, parameters in carried.items()},
            doc=doc,
            keyed=_ordered(keyed),
            owned=owned,
        )


@attrs.frozen(init=False)
class SharedObject(Generic[T_co]):
    """Declare a type that processes can share.

    Attributes:
        typeid: the name under which clients find it, ``client.<typeid>(name)``.
        factory: what makes the object in the server: a class, or a function. Of a function the class is known
            by its return annotation; without one, `exposed` must be given.
        per: ``"name"``, one object per name; ``"server"``, one object; ``"call"``, a new one at each call, as
            `multiprocessing` does.
        readonly: methods without effect on the state. Filled in for the builtin containers.
        waiting: methods that may wait. A method is never both readonly and waiting.
        exposed: methods that clients may call. None means the public methods of the class and those of its
            special methods that are in `DUNDERS`; never attributes, properties or class methods, nor the
            methods that the engine calls, such as ``owner_ended`` or ``load``.
        keyed: methods that read or change only what their first argument names, such as ``d[k]``, so that a change of
            one key leaves what clients have cached of the others. Arguments that are equal, as 1 and 1.0 are, must
            name one thing. Filled in for builtin dicts and sets. Whatever else such a method changes it tells by
            `registry.hosting.touch`.
        threaded: may block, may do anything; the calls of each owner run on a thread of their own. Such an
            object is never durable and never cached.
        carried: parameters that the server keeps without decoding them, as ``"method.parameter"``.
        shape: client-side behaviour, one of `SHAPES`. None derives mapping, sequence or set from the ABC of
            the class.
        proxy: for a private server alone, as `registry.Manager` starts one: what makes the proxies of
            `multiprocessing` for this type, a subclass of its `BaseProxy` or its ``AutoProxy``. It tells what is
            exposed. The type is threaded and ``per="call"``, and its values are passed as they are, unpickled.
        interface: the row for clients, with everything above derived.

    Raises:
        DeclarationError: a field breaks a rule; the text names field, rule and value.
        NotDurable: the factory is a class whose state the server cannot capture.

    >>> class Jar:
    ...     '''Keep cookies.'''
    ...     def __init__(self): self.content = {}
    ...     def get(self, key): return self.content.get(key)
    ...     def put(self, key, cookie): self.content[key] = cookie
    >>> SharedObject("jar", Jar, readonly=["get"]).interface.exposed
    ('get', 'put')
    """

    typeid: str
    factory: Callable[..., T_co]
    per: Per = attrs.field(default="name", kw_only=True)
    readonly: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    waiting: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    exposed: tuple[str, ...] | None = attrs.field(default=None, kw_only=True)
    threaded: bool = attrs.field(default=False, kw_only=True)
    keyed: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    carried: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    shape: Shape | None = attrs.field(default=None, kw_only=True)
    proxy: Callable[..., object] | None = attrs.field(default=None, kw_only=True)
    interface: Interface = attrs.field(init=False, repr=False, eq=False)

    def __init__(
        self,
        typeid: str,
        factory: Callable[..., T_co],
        *,
        per: Per = "name",
        readonly: Iterable[str] = (),
        waiting: Iterable[str] = (),
        exposed: Iterable[str] | None = None,
        threaded: bool = False,
        keyed: Iterable[str] = (),
        carried: Iterable[str] = (),
        shape: Shape | None = None,
        proxy: Callable[..., object] | None = None,
    ) -> None:
        _check_typeid(typeid)
        where = f"{typeid}."
        if not callable(factory):
            raise DeclarationError(where + "factory", "must be a class or a function", factory)
        _check_choice(where + "per", per, PERS)
        if type(threaded) is not bool:
            raise DeclarationError(where + "threaded", "must be a bool", threaded)
        if shape is not None:
            _check_choice(where + "shape", shape, SHAPES)
        if proxy is not None:
            if not callable(proxy):
                raise DeclarationError(where + "proxy", "must be a class of proxies of multiprocessing", proxy)
            rule = "belongs to a type that is threaded, per='call', and says nothing else, since the proxy does"
            if not threaded or per != "call" or readonly or waiting or exposed or keyed or carried or shape:
                raise DeclarationError(where + "proxy", rule, proxy)
        # attrs makes this of the fields above; written out, the public constructor can take any iterable
        # of names and still be typed.
        self.__attrs_init__(
            typeid,
            factory,
            per=per,
            readonly=_names(where + "readonly", readonly),
            waiting=_names(where + "waiting", waiting),
            exposed=None if exposed is None else _names(where + "exposed", exposed),
            threaded=threaded,
            keyed=_names(where + "keyed", keyed),
            carried=_names(where + "carried", carried),
            shape=shape,
            proxy=proxy,
        )
        object.__setattr__(self, "interface", _derive(self))


@attrs.frozen(init=False)
class ValueType:
    """Declare a class whose instances cross between processes as themselves.

    Both sides declare it, in the hook ``registry_value_types`` of a plugin that the server loads and that clients name
    in ``plugins=``. On the wire stands the name alone; whoever reads it looks it up among what was declared there.

    attrs classes, dataclasses, enums and named tuples need no functions. Of the first two each field crosses; they are
    made anew by calling the class with those that it takes, so that defaults, validators and ``__post_init__`` hold on
    the other side, too.

    Attributes:
        cls: the class, exactly: instances of its subclasses are none. Or where it is, as ``"module:Class"``, for a
            module that is not to be imported before there is a value of it; then `encode` and `decode` are needed.
        name: what stands on the wire and in logs, such as ``"shop.Cookie"``. It must not change when the class moves.
        encode: returns what crosses for an instance: a typed value, in which large buffers stand as memoryviews.
        decode: makes an instance of that. Where a memoryview was, there is one that cannot be written.

    Raises:
        DeclarationError: a field breaks a rule; the text names field, rule and value.

    >>> import attrs
    >>> @attrs.frozen
    ... class Cookie:
    ...     name: str
    >>> ValueType(Cookie, "shop.Cookie").name
    'shop.Cookie'
    """

    cls: type | str
    name: str
    encode: Callable[[Any], object] | None = None
    decode: Callable[[Any], Any] | None = None

    def __init__(
        self,
        cls: type | str,
        name: str,
        encode: Callable[[Any], object] | None = None,
        decode: Callable[[Any], Any] | None = None,
    ) -> None:
        if type(name) is not str or not _is_dotted(name):
            raise DeclarationError("name", "must be identifiers with dots between them", name)
        where = f"{name}."
        if isinstance(cls, str):
            module, _, path = cls.partition(":")
            if not (_is_dotted(module) and _is_dotted(path)):
                raise DeclarationError(where + "cls", "must be a class, or a text such as 'module:Class'", cls)
        elif not isinstance(cls, type):
            raise DeclarationError(where + "cls", "must be a class, or a text such as 'module:Class'", cls)
        for field, function in (("encode", encode), ("decode", decode)):
            if function is not None and not callable(function):
                raise DeclarationError(where + field, "must be a function", function)
        if (encode is None) != (decode is None):
            raise DeclarationError(where + "decode", "must come together with encode", decode)
        if encode is None and (isinstance(cls, str) or kind_of(cls) is None):
            rule = "needs encode and decode, unless it is an attrs class, a dataclass, an enum or a named tuple"
            raise DeclarationError(where + "cls", rule, cls)
        self.__attrs_init__(cls, name, encode, decode)


def kind_of(cls: type) -> str | None:
    """Return as what instances of a class can cross without functions: ``enum``, ``tuple`` or ``fields``."""
    if hasattr(cls, "__members__"):
        return "enum"
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return "tuple"
    return "fields" if "__attrs_attrs__" in vars(cls) or "__dataclass_fields__" in vars(cls) else None


def _is_dotted(text: str) -> bool:
    return len(text) <= _MAX_NAME and all(map(str.isidentifier, text.split(".")))


# Rules for single fields


def _is_name(value: object) -> bool:
    return (
        type(value) is str
        and len(value) <= _MAX_NAME
        and value.isidentifier()
        and not keyword.iskeyword(value)
        # Other spellings of one identifier are folded by Python's parser, not by getattr.
        and (value.isascii() or _folded(value) == value)
    )


def _folded(value: str) -> str:
    from unicodedata import normalize

    return normalize("NFKC", value)


def _check_typeid(typeid: object) -> None:
    if not _is_name(typeid) or str(typeid).startswith("_"):
        raise DeclarationError("typeid", "must be a public identifier, an attribute of clients", typeid)
    if typeid in RESERVED:
        raise DeclarationError("typeid", "must not be a name that clients or managers have already", typeid)


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if type(value) is not str or value not in choices:
        raise DeclarationError(field, f"must be one of {', '.join(map(repr, choices))}", value)


def _check_method(field: str, name: object) -> None:
    if not _is_name(name) or not _may_be_exposed(str(name)):
        raise DeclarationError(field, f"must hold public method names, or some of {', '.join(sorted(DUNDERS))}", name)


def _may_be_exposed(name: str) -> bool:
    return not name.startswith("_") or name in DUNDERS


def _check_subsets(
    where: str, exposed: Iterable[str], readonly: Iterable[str], waiting: Iterable[str], keyed: Iterable[str]
) -> None:
    exposed = set(exposed)
    for field, names in (("readonly", readonly), ("waiting", waiting), ("keyed", keyed)):
        for name in names:
            if name not in exposed:
                rule = "must name exposed methods"
                # A row from a peer has no author who could be helped, and may be long.
                raise DeclarationError(where + field, _out_of(exposed, rule, name) if where else rule, name)
    for name in sorted(set(readonly) & set(waiting)):
        raise DeclarationError(where + "waiting", "must not name methods that are also readonly", name)


def _out_of(known: Iterable[str], rule: str, name: str) -> str:
    """Return a rule with the names that would have kept it, and the one that is meant, if that can be guessed."""
    from difflib import get_close_matches

    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{rule} (it has {', '.join(names) or 'none'}{meant})"


def _names(field: str, value: Iterable[str]) -> tuple[str, ...]:
    """Return the given names as a tuple; a string is refused, since it would be a row of letters."""
    if isinstance(value, str):
        raise DeclarationError(field, f"must be a tuple or list of names, such as ({value!r},)", value)
    if not isinstance(value, Iterable):
        raise DeclarationError(field, "must be a tuple or list of names", value)
    names = tuple(dict.fromkeys(value))
    for name in names:
        if type(name) is not str:
            raise DeclarationError(field, "must hold strings", name)
    # A set has no order of its own, and equal declarations must be equal.
    return tuple(sorted(names)) if isinstance(value, (set, frozenset)) else names


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


# From a declaration to its interface


def _derive(record: SharedObject[object]) -> Interface:
    where = f"{record.typeid}."
    _refuse_primitives(where, record.factory)
    cls = _made_by(record.factory)
    if record.proxy is not None:
        doc = _doc(record.factory) or _doc(cls)
        return Interface(typeid=record.typeid, per=record.per, threaded=True, doc=doc)
    is_class = cls is not None and isinstance(_bare(record.factory), type)
    if cls is not None and is_class:
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        if missing:
            raise DeclarationError(where + "factory", f"must not be abstract (it lacks {missing})", cls)
        obstacle = None if record.threaded else _obstacle(cls)
        if obstacle is not None:
            raise NotDurable(_label(cls), obstacle)

    exposed = _exposed(where, record, cls)
    readonly = record.readonly
    if not readonly and cls in _BUILTIN_READS:
        readonly = tuple(name for name in _BUILTIN_READS[cls].split() if name in exposed)
    keyed = record.keyed
    if not keyed and cls in _BUILTIN_KEYED:
        keyed = tuple(name for name in _BUILTIN_KEYED[cls].split() if name in exposed)
    _check_subsets(where, exposed, readonly, record.waiting, keyed)
    _check_keyed(where, record, cls)
    return Interface(
        typeid=record.typeid,
        per=record.per,
        shape=record.shape or _shape(cls),
        threaded=record.threaded,
        exposed=_ordered(exposed),
        readonly=_ordered(readonly),
        waiting=_ordered(record.waiting),
        carried=_carried(where, record, cls, exposed),
        doc=_doc(cls if is_class else record.factory) or _doc(cls),
        keyed=_ordered(keyed),
        # What any thread of a process may release is the process's.
        owned=cls is None or (hasattr(cls, "owner_ended") and not getattr(cls, "any_thread_releases", False)),
    )


def _bare(factory: object) -> object:
    while isinstance(factory, functools.partial):
        factory = factory.func
    return factory


def _refuse_primitives(where: str, factory: object) -> None:
    bare = _bare(factory)
    for candidate in (bare, _made_by(bare)):
        plugin = _primitive(candidate)
        if plugin is not None:
            ours = _OURS.get(str(getattr(candidate, "__name__", "")))
            if ours == "queue":
                plugin = "registry_queues"
            raise DeclarationError(
                where + "factory",
                "must make something that can be freed when its holder dies (take "
                f"{repr(ours) if ours else 'a type'} of {plugin})",
                factory,
            )


def _primitive(candidate: object) -> str | None:
    """Return the plugin to take instead of a primitive of the standard library, if it is one."""
    module = str(getattr(candidate, "__module__", ""))
    return _PRIMITIVES.get(module) or _PRIMITIVES.get(module.partition(".")[0])


def _made_by(factory: object) -> type | None:
    """Return the class of what a factory makes, or None if only a call would tell."""
    bare = _bare(factory)
    if isinstance(bare, type):
        return bare
    function = bare if hasattr(bare, "__annotations__") else type(bare).__call__
    hint = getattr(function, "__annotations__", {}).get("return")
    if isinstance(hint, str):
        hint = _evaluated(hint, function)
    cls = get_origin(hint) or hint
    # Any is a class since Python 3.11; neither it nor object says what is made.
    return cls if isinstance(cls, type) and cls not in (Any, object) else None


def _evaluated(hint: str, function: object) -> object:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    names = getattr(getattr(function, "__func__", function), "__globals__", {})
    # Of the annotations only this one is wanted: the others may name what is imported for typing only.
    holder = types.FunctionType((lambda: None).__code__, {})
    holder.__annotations__ = {"return": hint}
    try:
        return get_type_hints(holder, names).get("return")
    except Exception:  # noqa: BLE001 - the text of an annotation is the author's and may raise anything
        return None


def _bodies(cls: type) -> dict[str, object]:
    """Return what stands in the bodies of a class and its bases; no descriptor is asked for anything."""
    found: dict[str, object] = {}
    for klass in reversed(cls.__mro__):
        if klass is not object:
            found.update(vars(klass))
    # A dataclass keeps the defaults of its fields there, which are attributes even if they can be called.
    for name in getattr(cls, "__dataclass_fields__", ()):
        found.pop(name, None)
    return found


def _is_method(raw: object) -> bool:
    # Class methods make new objects, and nested classes are no methods at all.
    if isinstance(raw, (type, *_CLASS_METHODS)):
        return False
    return callable(raw) or isinstance(raw, _METHOD_DESCRIPTORS)


def _is_callable(raw: object) -> bool:
    """Tell whether it may be exposed by name: class methods, too."""
    return _is_method(raw) or isinstance(raw, _CLASS_METHODS)


def _exposed(where: str, record: SharedObject[object], cls: type | None) -> tuple[str, ...]:
    field = where + "exposed"
    bodies = {} if cls is None else _bodies(cls)
    if record.exposed is not None:
        names = record.exposed
        for name in names:
            _check_method(field, name)
            if cls is not None and not _is_callable(bodies.get(name)):
                known = [each for each, raw in bodies.items() if _is_callable(raw) and _may_be_exposed(each)]
                raise DeclarationError(field, _out_of(known, f"must name methods of {_label(cls)}", name), name)
    elif cls is not None:
        names = tuple(
            name
            for name, raw in bodies.items()
            if _may_be_exposed(name) and name not in _ENGINE_METHODS and _is_method(raw)
        )
        if cls is set:
            # It takes what stands first, and the order of a set is not part of its state.
            names = tuple(name for name in names if name != "pop")
    else:
        rule = "must be given, or the factory annotated with the class that it returns"
        raise DeclarationError(field, rule, None)
    if not names:
        raise DeclarationError(field, "must not be empty, or nothing could be called", names)
    lazy = _MAY_GENERATE.get(record.shape or _shape(cls), ITERATING)
    for name in names:
        _refuse_unrun(field, name, bodies.get(name), name in lazy)
    return names


def _refuse_unrun(field: str, name: str, raw: object, may_generate: bool) -> None:
    """Refuse a method of which nothing would have run by the time that it has returned."""
    flags = getattr(getattr(getattr(raw, "__func__", raw), "__code__", None), "co_flags", 0)
    if flags & _AWAITED:
        rule = (
            "must not name coroutines, which nobody awaits in a server (write def, and let a call wait by "
            "hosting.Waiters)"
        )
        raise DeclarationError(field, rule, name)
    if flags & _GENERATES and not may_generate:
        raise DeclarationError(field, "must not name generators, which cannot cross (return a list)", name)


def _carried(
    where: str, record: SharedObject[object], cls: type | None, exposed: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    field = where + "carried"
    found: dict[str, dict[str, int]] = {}
    for entry in record.carried:
        method, _, parameter = entry.partition(".")
        if not (_is_name(method) and _is_name(parameter)):
            raise DeclarationError(field, 'must be written "method.parameter"', entry)
        if method not in exposed:
            raise DeclarationError(field, _out_of(exposed, "must name exposed methods", method), entry)
        if cls is None:
            rule = "needs a known class: annotate the factory with the class that it returns"
            raise DeclarationError(field, rule, entry)
        found.setdefault(method, {})[parameter] = _position(field, entry, cls, method, parameter)
    return found


def _check_keyed(where: str, record: SharedObject[object], cls: type | None) -> None:
    field = where + "keyed"
    for name in record.keyed:
        if cls is None:
            rule = "needs a known class: annotate the factory with the class that it returns"
            raise DeclarationError(field, rule, name)
        first = next(iter(_parameters(field, name, cls, name)), None)
        if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
            raise DeclarationError(field, "must name methods whose first parameter is the key", name)


def _parameters(field: str, entry: str, cls: type, method: str) -> list[Parameter]:
    """Return the parameters of a method, the object itself not counted."""
    from inspect import signature

    try:
        parameters = list(signature(getattr(cls, method)).parameters.values())
    except (TypeError, ValueError):
        raise DeclarationError(field, f"needs a signature, which {method} does not tell", entry) from None
    if isinstance(_bodies(cls).get(method), (staticmethod, *_CLASS_METHODS)):
        return parameters
    return parameters[1:]


def _position(field: str, entry: str, cls: type, method: str, parameter: str) -> int:
    from inspect import Parameter

    parameters = _parameters(field, entry, cls, method)
    for position, candidate in enumerate(parameters):
        if candidate.name == parameter:
            if candidate.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
                raise DeclarationError(field, "must name a single parameter", entry)
            return -1 if candidate.kind is Parameter.KEYWORD_ONLY else position
    known = [each.name for each in parameters]
    raise DeclarationError(field, _out_of(known, f"must name a parameter of {_label(cls)}.{method}", parameter), entry)


def _shape(cls: type | None) -> str | None:
    if cls is None:
        return None
    if issubclass(cls, MutableMapping):
        return "mapping"
    if issubclass(cls, MutableSequence):
        return "sequence"
    return "set" if issubclass(cls, MutableSet) else None


def _doc(source: object) -> str:
    # An instance, such as a partial, has only the documentation of its class, which is not about this.
    documented = isinstance(source, type) or hasattr(source, "__name__")
    text = getattr(source, "__doc__", None) if documented else None
    line = text.strip().partition("\n")[0].strip() if isinstance(text, str) else ""
    return "".join(filter(str.isprintable, line))[:_MAX_DOC]


def is_primitive(cls: type) -> bool:
    """Tell whether it is a lock, a queue or the like of the standard library, which dies with a process."""
    return _primitive(cls) is not None


def _label(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _obstacle(cls: type) -> str | None:
    """Say why the state of a class cannot be captured, as far as the class itself shows it."""
    if cls in _CONTAINERS or all(callable(getattr(cls, name, None)) for name in ("state", "load")):
        return None
    slots = {
        name: klass
        for klass in cls.__mro__
        if "__slots__" in vars(klass)
        for name, raw in vars(klass).items()
        if isinstance(raw, types.MemberDescriptorType)
    }
    # The sum that copyreg's protocol makes, too: what is larger keeps data where Python cannot see it.
    word = 8 if sys.maxsize > 2**32 else 4
    pointers = len(slots) + (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    if cls.__itemsize__ or cls.__basicsize__ > object.__basicsize__ + word * pointers:
        hidden = next(klass for klass in cls.__mro__ if _is_static(klass) or klass is cls.__mro__[-2])
        instead = _INSTEAD.get(hidden, "")
        return f"it keeps data outside its attributes, as {_label(hidden)} does{instead}"
    for klass in cls.__mro__:
        if _primitive(klass) is not None:
            return f"it is a {_label(klass)}"
    for name, klass in slots.items():
        if not vars(klass).keys() & {"__attrs_attrs__", "__dataclass_fields__"}:
            return f"its state is in __slots__ ({name!r} of {_label(klass)}); make it an attrs class or a dataclass"
    return None


def _is_static(cls: type) -> bool:
    return cls is not object and not cls.__flags__ & 1 << 9  # Py_TPFLAGS_HEAPTYPE
