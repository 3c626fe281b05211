"""Records of what is shared: every mistake is told by the record, and clients are told only what is true."""

from __future__ import annotations

import asyncio
import doctest
import functools
import multiprocessing
import pickle
import queue
import threading
from abc import ABC, abstractmethod
from array import array
from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import MutableMapping, MutableSet
from dataclasses import dataclass, field
from multiprocessing.managers import BaseManager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import registry.declarations
from registry.declarations import DUNDERS, RESERVED, SHAPES, Interface, SharedObject
from registry.errors import DeclarationError, NotDurable

if TYPE_CHECKING:
    from nowhere import Absent

T = TypeVar("T")


class Jar:
    """Keep cookies.

    More about it.
    """

    colour = "brown"

    class Meta:
        pass

    def __init__(self, size: int = 3) -> None:
        self.size = size
        self.content: dict[str, str] = {}

    def get(self, key, default=None):
        return self.content.get(key, default)

    def put(self, key, cookie, *, taste=None):
        self.content[key] = cookie

    def put_all(self, *cookies, **named):
        pass

    def take(self, timeout=None):
        pass

    @property
    def full(self):
        return len(self.content) >= self.size

    @functools.cached_property
    def weight(self):
        return 1

    @classmethod
    def of(cls, cookies):
        return cls()

    @staticmethod
    def taste(cookie):
        return "good"

    put_vanilla = functools.partialmethod(put, "vanilla")

    def __len__(self):
        return len(self.content)

    def __eq__(self, other):
        return True

    __hash__ = None

    def _private(self):
        pass

    def owner_ended(self, owner):
        pass

    def statistics(self):
        return {}


EXPOSED = ("__len__", "get", "put", "put_all", "put_vanilla", "take", "taste")


def annotated(size=3) -> Jar:
    """Make a jar."""
    return Jar(size)


def unannotated():
    return Jar()


def refusal(*args, **kwargs) -> DeclarationError:
    """Return the error that a record gives."""
    with pytest.raises(DeclarationError) as caught:
        SharedObject(*args, **kwargs)
    return caught.value


# What is exposed


def test_public_methods_are_exposed():
    """Exposed are public methods and dunders of the list; no attribute, property, class method or class."""
    assert SharedObject("jar", Jar).interface == Interface(
        typeid="jar", shape=None, exposed=EXPOSED, doc="Keep cookies.", owned=True
    )


def test_clients_are_told_what_a_thread_may_hold():
    """Owned is what hears of the ends of owners, unless any thread of the process may release it."""

    class Seat:
        def take(self):
            pass

        def owner_ended(self, owner):
            pass

    class Bench(Seat):
        any_thread_releases = True

    assert SharedObject("seat", Seat).interface.owned
    assert not SharedObject("bench", Bench).interface.owned
    assert not SharedObject("d", dict).interface.owned
    assert SharedObject("x", unannotated, exposed=["get"]).interface.owned, "nobody knows of what class it is"


def test_exposed_may_be_given():
    """Names given are taken, in any order, class methods and methods of the engine included."""
    record = SharedObject("jar", Jar, exposed=["put", "get", "of", "statistics"])
    assert record.exposed == ("put", "get", "of", "statistics")
    assert record.interface.exposed == ("get", "of", "put", "statistics")


@pytest.mark.parametrize("name", ["colour", "full", "weight", "missing", "Meta"])
def test_only_methods_can_be_exposed(name):
    """A name that is no method of the class is refused."""
    error = refusal("jar", Jar, exposed=["get", name])
    assert (error.field, error.value) == ("jar.exposed", name)
    assert "methods of" in error.rule


@pytest.mark.parametrize("name", ["_private", "__eq__", "__init__", "__class__", "__reduce__", "a b", "", "if"])
def test_private_names_cannot_be_exposed(name):
    """No private name and no dunder that is not in the list is exposed, whatever the class has."""
    assert refusal("jar", Jar, exposed=[name]).field == "jar.exposed"


class Lazy:
    """Have methods of which nothing runs when they are called."""

    async def fetch(self): ...
    async def stream(self):
        yield 1

    def each(self):
        yield 1

    @staticmethod
    async def still(): ...

    def keys(self):
        yield 1

    def __iter__(self):
        yield 1

    def now(self): ...


def test_methods_run_when_they_are_called():
    """Coroutines and generators are refused, but for what a container may return as one."""
    assert SharedObject("lazy", Lazy, exposed=["keys", "__iter__", "now"], shape="mapping").interface.exposed
    assert "must not name generators" in refusal("lazy", Lazy, exposed=["keys", "__iter__", "now"]).rule
    assert str(refusal("lazy", Lazy, exposed=["now", "fetch"])) == (
        "lazy.exposed must not name coroutines, which nobody awaits in a server (write def, and let a call wait by "
        "hosting.Waiters), not 'fetch' of type str"
    )
    assert str(refusal("lazy", Lazy, exposed=["each", "now"], threaded=True)) == (
        "lazy.exposed must not name generators, which cannot cross (return a list), not 'each' of type str"
    )
    for name in ("stream", "still"):
        assert "must not name coroutines" in refusal("lazy", Lazy, exposed=[name]).rule
    assert "'fetch'" in str(refusal("lazy", Lazy)), "whatever is public is exposed"


def test_something_must_be_exposed():
    """A type without a method is refused."""

    class Empty:
        pass

    assert refusal("jar", Empty).field == "jar.exposed"
    assert refusal("jar", Jar, exposed=()).field == "jar.exposed"


def test_a_method_taken_away_is_not_exposed():
    """A subclass that sets an inherited method to None, or to a property, does not have it."""

    class Small(Jar):
        put = None
        get = property(lambda self: 3)

    exposed = SharedObject("jar", Small).interface.exposed
    assert set(EXPOSED) - set(exposed) == {"put", "get"}


def test_defaults_of_fields_are_not_methods():
    """A dataclass field with a function as its default is an attribute."""

    @dataclass
    class Sorted:
        items: list[int] = field(default_factory=list)
        key: Any = len

        def add(self, item):
            self.items.append(item)

    assert SharedObject("x", Sorted).interface.exposed == ("add",)


def test_no_descriptor_is_asked():
    """Looking for methods runs no code of the class."""

    class Bomb:
        def __get__(self, instance, owner):
            raise RuntimeError("touched")

    class Mined:
        bomb = Bomb()

        def defuse(self):
            pass

    assert SharedObject("mined", Mined).interface.exposed == ("defuse",)


# Factories


@pytest.mark.parametrize(
    "factory",
    [annotated, functools.partial(annotated, 4), functools.partial(Jar, 4), Jar.of],
    ids=["function", "partial function", "partial class", "class method"],
)
def test_the_class_behind_a_factory(factory):
    """The class is known of a class, of an annotated function, and of partials of both."""
    if factory == Jar.of:
        assert refusal("jar", factory).field == "jar.exposed"
    else:
        assert SharedObject("jar", factory).interface.exposed == EXPOSED


def test_annotations_as_text_or_generic():
    """An annotation may be text, or generic, and the others need not be resolvable."""

    def text(other: Absent | None = None) -> dict[str, int]:
        return {}

    def gone() -> Absent:
        return None

    def anything() -> Any:
        return None

    class Maker:
        def __call__(self) -> Jar:
            return Jar()

        def make(self) -> Jar:
            return Jar()

    def real():
        return {}

    real.__annotations__["return"] = dict[str, int]
    assert SharedObject("x", text).interface.shape == "mapping"
    assert SharedObject("x", real).interface.shape == "mapping"
    assert SharedObject("x", Maker()).interface.exposed == EXPOSED
    assert SharedObject("x", Maker().make).interface.exposed == EXPOSED
    for factory in (gone, anything, lambda: Jar()):
        assert refusal("x", factory).field == "x.exposed"


def test_annotations_of_a_wrapped_function():
    """The annotation of a decorated function is looked up where that function is from."""

    @functools.wraps(annotated)
    def wrapper(*args):
        return annotated(*args)

    assert SharedObject("x", wrapper).interface.exposed == EXPOSED


def test_a_function_without_annotation_needs_exposed():
    """Where only a call would tell the class, the names are given and taken as they are."""
    record = SharedObject("jar", unannotated, exposed=("get", "put"), readonly=("get",), shape="mapping")
    assert record.interface.exposed == ("get", "put")
    assert record.interface.readonly == ("get",)
    error = refusal("jar", unannotated)
    assert str(error) == (
        "jar.exposed must be given, or the factory annotated with the class that it returns, not None of type NoneType"
    )


def test_what_cannot_be_called_is_no_factory():
    """An instance is not a factory."""
    assert refusal("jar", Jar()).field == "jar.factory"


def test_an_abstract_class_is_no_factory():
    """A class that cannot be made is refused, naming what it lacks."""

    class Base(ABC):
        @abstractmethod
        def get(self): ...

    error = refusal("x", Base)
    assert error.field == "x.factory"
    assert "(it lacks get)" in error.rule


def an_event() -> threading.Event:
    return threading.Event()


@pytest.mark.parametrize(
    ("factory", "ours"),
    [
        (threading.Lock, "'lock' of registry_sync"),
        (threading.RLock, "'rlock' of registry_sync"),
        (threading.Event, "'event' of registry_sync"),
        (threading.BoundedSemaphore, "'bounded_semaphore' of registry_sync"),
        (threading.Condition, "'condition' of registry_sync"),
        (threading.Barrier, "'barrier' of registry_sync"),
        (functools.partial(threading.Semaphore, 3), "'semaphore' of registry_sync"),
        (threading.Timer, "a type of registry_sync"),
        (an_event, "'event' of registry_sync"),
        (queue.Queue, "'queue' of registry_queues"),
        (queue.SimpleQueue, "'queue' of registry_queues"),
        (queue.PriorityQueue, "a type of registry_queues"),
        (asyncio.Lock, "'lock' of registry_sync"),
        (asyncio.Queue, "'queue' of registry_queues"),
        (multiprocessing.Lock, "'lock' of registry_sync"),
    ],
)
@pytest.mark.parametrize("threaded", [False, True])
def test_primitives_are_refused(factory, ours, threaded):
    """Primitives of the standard library are refused, naming ours, since nobody can free them."""
    error = refusal("mine", factory, threaded=threaded)
    assert error.field == "mine.factory"
    assert f"(take {ours})" in error.rule


# Durability


class Slotted:
    __slots__ = ("content",)

    def get(self):
        return self.content


class Told(Slotted):
    __slots__ = ()

    def state(self):
        return self.content

    def load(self, state):
        self.content = state


class Grown(dict):
    def extra(self):
        pass


class ToldDict(Grown):
    def state(self):
        return dict(self)

    def load(self, state):
        self.update(state)


class Signal(threading.Event):
    pass


@attrs.define
class Attrs:
    content: int = 3

    def get(self):
        return self.content


@dataclass
class Data:
    content: int = 3

    def get(self):
        return self.content


class Of(Generic[T]):
    def get(self) -> T | None:
        return None


@pytest.mark.parametrize(
    "factory", [dict, list, set, deque, OrderedDict, UserDict, UserList, Jar, Told, ToldDict, Attrs, Data, Of]
)
def test_state_that_can_be_captured(factory):
    """Containers, attributes, attrs classes, dataclasses, and what tells its state are accepted inline."""
    assert SharedObject("x", factory).threaded is False


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (
            Slotted,
            f"its state is in __slots__ ('content' of {__name__}.Slotted); make it an attrs class or a dataclass",
        ),
        (Grown, "it keeps data outside its attributes, as dict does; derive it from collections.UserDict"),
        (Counter, "it keeps data outside its attributes, as dict does"),
        (defaultdict, "it keeps data outside its attributes, as "),
        (int, "it keeps data outside its attributes, as int does"),
        (bytearray, "it keeps data outside its attributes, as bytearray does"),
        (array, "it keeps data outside its attributes, as array.array does"),
        (functools.partial, "it keeps data outside its attributes, as functools.partial does"),
        (Signal, "it is a threading.Event"),
    ],
)
def test_state_that_cannot_be_captured(factory, reason):
    """A class that hides its state is refused inline when it is declared, but may be threaded."""
    with pytest.raises(NotDurable) as caught:
        SharedObject("x", factory, exposed=None)
    assert caught.value.reason.startswith(reason)
    assert "threaded=True" in str(caught.value)
    if factory is not functools.partial:
        assert SharedObject("x", factory, threaded=True).interface.threaded


def test_attrs_classes_with_slots_of_a_plain_base():
    """Fields tell the state of their own class only, not the slots of a base."""

    @attrs.define
    class Child(Slotted):
        more: int = 0

    with pytest.raises(NotDurable, match="'content'"):
        SharedObject("x", Child)


# Names


@pytest.mark.parametrize("typeid", ["", "a b", "1st", "_private", "__len__", "class", 3, None, b"x", "ﬁle", "x" * 256])
def test_typeids_are_public_identifiers(typeid):
    """A typeid is an attribute of clients, so that it must be a public identifier in its one spelling."""
    assert refusal(typeid, dict).field == "typeid"


@pytest.mark.parametrize("typeid", ["lock", "zähler", "match", "x" * 255])
def test_typeids_that_are_fine(typeid):
    """Any identifier that Python spells in one way will do."""
    assert SharedObject(typeid, dict).interface.typeid == typeid


def test_typeids_hide_nothing():
    """No typeid is a name of managers, on any of whose public names the list is to be complete."""
    assert {name for name in dir(BaseManager()) if not name.startswith("_")} <= RESERVED
    for typeid in RESERVED:
        assert refusal(typeid, dict).field == "typeid"


@pytest.mark.parametrize("field", ["readonly", "waiting", "exposed", "keyed", "carried"])
def test_a_string_is_not_a_tuple_of_names(field):
    """A string is refused where names are wanted: it would be a row of letters."""
    error = refusal("jar", Jar, **{field: "get"})
    assert str(error) == (f"jar.{field} must be a tuple or list of names, such as ('get',), not 'get' of type str")


@pytest.mark.parametrize("field", ["readonly", "waiting", "exposed", "keyed", "carried"])
@pytest.mark.parametrize("value", [3, [3], [None]])
def test_names_are_strings(field, value):
    """What holds no strings is refused."""
    assert refusal("jar", Jar, **{field: value}).field == f"jar.{field}"


@pytest.mark.parametrize("field", ["readonly", "waiting", "keyed"])
@pytest.mark.parametrize("name", ["missing", "full", "_private", "owner_ended"])
def test_names_must_be_exposed(field, name):
    """A property of a method that nobody can call is a mistake."""
    error = refusal("jar", Jar, **{field: ("get", name)})
    assert (error.field, error.value) == (f"jar.{field}", name)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"readonly": ("get", "gett")},
            "jar.readonly must name exposed methods (it has __len__, get, put, put_all, put_vanilla, take, taste; "
            "did you mean 'get'?), not 'gett' of type str",
        ),
        (
            {"waiting": ["await_cookie"], "exposed": ["take", "put"]},
            "jar.waiting must name exposed methods (it has put, take), not 'await_cookie' of type str",
        ),
        (
            {"keyed": ["putt"], "exposed": ["take", "put"]},
            "jar.keyed must name exposed methods (it has put, take; did you mean 'put'?), not 'putt' of type str",
        ),
        (
            {"carried": ["pot.cookie"], "exposed": ["take", "put"]},
            "jar.carried must name exposed methods (it has put, take; did you mean 'put'?), "
            "not 'pot.cookie' of type str",
        ),
        (
            {"carried": ["put.cooky"]},
            f"jar.carried must name a parameter of {__name__}.Jar.put (it has cookie, key, taste; "
            "did you mean 'cookie'?), not 'put.cooky' of type str",
        ),
        (
            {"carried": ["__len__.key"]},
            f"jar.carried must name a parameter of {__name__}.Jar.__len__ (it has none), not '__len__.key' of type str",
        ),
        (
            {"exposed": ["take", "of_cookies"]},
            f"jar.exposed must name methods of {__name__}.Jar (it has __len__, get, of, owner_ended, put, put_all, "
            "put_vanilla, statistics, take, taste), not 'of_cookies' of type str",
        ),
    ],
)
def test_a_name_that_is_not_there_is_told_with_those_that_are(given, text):
    """All of them, and the nearest, if one is near; no record is made."""
    made = []
    with pytest.raises(DeclarationError) as caught:
        made.append(SharedObject("jar", Jar, **given))
    assert str(caught.value) == text
    assert not made


def test_names_that_a_peer_sends_are_compared_with_nothing():
    """What is wrong with a row is told in short, however many names it has."""
    row = RECORDS[0].interface.pack()
    row[4], row[5] = [f"method{number}" for number in range(2000)], ["method"]
    with pytest.raises(DeclarationError) as caught:
        Interface.unpack(row)
    assert str(caught.value) == "readonly must name exposed methods, not 'method' of type str"


def test_never_both_readonly_and_waiting():
    """A method that waits changes the state."""
    error = refusal("jar", Jar, readonly=("get", "take"), waiting=("take",))
    assert (error.field, error.value) == ("jar.waiting", "take")


class Shelf:
    """Have methods with and without a key."""

    def get(self, key): ...
    def only(self, key, /): ...
    def count(self): ...
    def many(self, *keys): ...
    def named(self, *, key): ...
    @staticmethod
    def still(key): ...


def test_keyed_methods_have_a_key():
    """What touches only what its first argument names has one, which can be given by its position."""
    record = SharedObject("shelf", Shelf, keyed=["still", "get", "only"], readonly=["get"])
    assert record.keyed == ("still", "get", "only")
    assert record.interface.keyed == ("get", "only", "still")
    for name in ("count", "many", "named"):
        error = refusal("shelf", Shelf, keyed=[name])
        assert str(error) == (
            f"shelf.keyed must name methods whose first parameter is the key, not {name!r} of type str"
        )


def test_keyed_methods_have_a_signature():
    """Whether there is a key must be known when the record is made."""

    def untold(): ...

    error = refusal("x", untold, exposed=["get"], keyed=["get"])
    assert "keyed needs a known class: annotate the factory" in str(error)
    error = refusal("x", dict, keyed=["pop"])
    assert "keyed needs a signature, which pop does not tell" in str(error)


def test_builtin_dicts_and_sets_are_keyed():
    """What they do to one key is known; the items of a list have many names."""
    assert set(SharedObject("d", dict).interface.keyed) >= {"__getitem__", "__setitem__", "get", "pop"}
    assert set(SharedObject("s", set).interface.keyed) == {"__contains__", "add", "discard", "remove"}
    assert SharedObject("l", list).interface.keyed == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [("per", "process"), ("per", None), ("shape", "tree"), ("shape", 3), ("threaded", 1), ("threaded", "no")],
)
def test_choices(field, value):
    """Other values of the fields with few values are refused."""
    error = refusal("jar", Jar, **{field: value})
    assert (error.field, error.value) == (f"jar.{field}", value)


def test_iterables_of_names_are_equal():
    """A list, a tuple, a set or repeated names make equal declarations."""
    records = [
        SharedObject("jar", Jar, readonly=names)
        for names in (("get", "taste"), ["get", "taste", "get"], {"taste", "get"}, iter(["get", "taste"]))
    ]
    assert all(record == records[0] and hash(record) == hash(records[0]) for record in records)


# Carried parameters


def test_positions_of_carried_parameters():
    """Positions do not count the object, and a keyword-only parameter has none."""
    carried = ("put.cookie", "put.taste", "taste.cookie", "get.default")
    assert SharedObject("jar", Jar, carried=carried).interface.carried == {
        "put": {"cookie": 1, "taste": -1},
        "taste": {"cookie": 0},
        "get": {"default": 1},
    }
    assert SharedObject("d", dict, carried=["__setitem__.value"]).interface.carried == {"__setitem__": {"value": 1}}
    assert SharedObject("jar", Jar, exposed=["of"], carried=["of.cookies"]).interface.carried == {"of": {"cookies": 0}}


@pytest.mark.parametrize(
    "entry",
    [
        "put",
        "put.",
        ".cookie",
        "put.cookie.x",
        "missing.x",
        "put.missing",
        "put.self",
        "put_all.cookies",
        "put_all.named",
    ],
)
def test_carried_parameters_exist(entry):
    """A carried parameter is a single one, of an exposed method."""
    error = refusal("jar", Jar, carried=[entry])
    assert (error.field, error.value) == ("jar.carried", entry)


def test_carried_needs_a_signature():
    """Where no signature is known, there are no positions."""
    assert "signature" in refusal("d", dict, carried=["update.other"]).rule
    assert "annotate" in refusal("d", unannotated, exposed=["put"], carried=["put.cookie"]).rule


# What is derived


class Map(MutableMapping):
    def __getitem__(self, key): ...
    def __setitem__(self, key, value): ...
    def __delitem__(self, key): ...
    def __iter__(self): ...
    def __len__(self): ...


@pytest.mark.parametrize(
    ("factory", "shape"),
    [
        (dict, "mapping"),
        (OrderedDict, "mapping"),
        (UserDict, "mapping"),
        (Map, "mapping"),
        (list, "sequence"),
        (deque, "sequence"),
        (UserList, "sequence"),
        (set, "set"),
        (Jar, None),
    ],
)
def test_shapes_are_derived(factory, shape):
    """The shape follows from the ABC of the class, unless it is declared."""
    assert SharedObject("x", factory).interface.shape == shape
    assert SharedObject("x", factory, shape="queue").interface.shape == "queue"


def test_abstract_reversed_is_not_exposed():
    """A mapping of one's own cannot be reversed, and does not pretend to."""
    exposed = SharedObject("x", Map).interface.exposed
    assert "__reversed__" not in exposed
    assert {"__getitem__", "__len__", "items", "setdefault"} <= set(exposed)


@pytest.mark.parametrize("factory", [dict, list, set, deque, OrderedDict])
def test_reads_of_builtin_containers_are_known(factory):
    """Of the builtin containers every method that changes nothing is readonly, and no other is."""
    interface = SharedObject("x", factory).interface
    attempts = ((), (0, 0), (0,), (7,), ([0],), ([7],), ({7: 7},))
    for name in interface.exposed:
        subject = factory({0: 1, 1: 2} if issubclass(factory, dict) else [2, 0, 1])
        before = repr(subject)
        for args in attempts:
            try:
                getattr(subject, name)(*args)
            except (TypeError, KeyError, ValueError, IndexError):
                continue
        assert (name in interface.readonly) == (repr(subject) == before), name


def test_readonly_of_containers_can_be_given():
    """Names that are given are taken alone; an exposed list limits those that are filled in."""
    assert SharedObject("d", dict, readonly=["get"]).interface.readonly == ("get",)
    assert SharedObject("d", dict, exposed=["get", "pop"]).interface.readonly == ("get",)
    assert SharedObject("d", dict).readonly == ()


def test_documentation():
    """The first line of the documentation is that of the function, else that of the class."""

    def silent() -> Jar:
        return Jar()

    class Mute:
        def get(self): ...

    assert SharedObject("x", annotated).interface.doc == "Make a jar."
    assert SharedObject("x", silent).interface.doc == "Keep cookies."
    assert SharedObject("x", functools.partial(Jar, 3)).interface.doc == "Keep cookies."
    assert SharedObject("x", Mute).interface.doc == ""


def test_records_are_values():
    """A record is frozen, can be copied with changes, pickled, and compared."""
    record = SharedObject("jar", Jar, readonly=("get",), carried=["put.cookie"])
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.typeid = "x"
    assert pickle.loads(pickle.dumps(record)) == record
    assert pickle.loads(pickle.dumps(record)).interface == record.interface
    other = attrs.evolve(record, typeid="tin", waiting=["take"])
    assert (other.interface.typeid, other.interface.waiting) == ("tin", ("take",))
    assert other != record


# Across the wire


RECORDS = [
    SharedObject("jar", Jar, readonly=["get"], waiting=["take"], keyed=["put"], carried=["put.cookie", "put.taste"]),
    SharedObject("d", dict, per="server"),
    SharedObject("one", annotated, per="call", threaded=True, shape="queue"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.typeid)
def test_rows_cross(record):
    """What is unpacked is what was packed, and a longer row of a later version is understood."""
    row = record.interface.pack()
    assert Interface.unpack(row) == record.interface
    assert Interface.unpack([*row, {"later": 1}]) == record.interface
    earlier = Interface.unpack(row[:9])
    assert earlier == attrs.evolve(record.interface, keyed=(), owned=True)
    assert type(row) is list


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, "connect"),
        (0, "_x"),
        (0, 3),
        (1, "process"),
        (1, None),
        (2, "tree"),
        (2, []),
        (3, 1),
        (4, ["get", "__reduce__"]),
        (4, ["get", "__class__"]),
        (4, ["get", "_private"]),
        (4, ["get", 3]),
        (4, ["get", ["put"]]),
        (4, ("get",)),
        (4, ["a"] * 2001),
        (4, ["put", "take"]),
        (5, ["missing"]),
        (5, "get"),
        (6, ["get"]),
        (6, None),
        (7, []),
        (7, {"missing": {}}),
        (7, {"put": []}),
        (7, {"put": {"a b": 1}}),
        (7, {"put": {"cookie": True}}),
        (7, {"put": {"cookie": -2}}),
        (7, {"put": {"cookie": 2**40}}),
        (7, {3: {}}),
        (8, None),
        (8, "two\nlines"),
        (8, "\x1b[31mred"),
        (8, "x" * 1001),
        (9, ["missing"]),
        (9, "get"),
        (9, None),
        (10, None),
        (10, 1),
    ],
)
def test_rows_are_not_trusted(position, value):
    """A row that no declaration could have made is refused, so that no server shapes a client's classes."""
    row = RECORDS[0].interface.pack()
    row[position] = value
    with pytest.raises(DeclarationError):
        Interface.unpack(row)


@pytest.mark.parametrize("row", [None, [], {}, "jar", list("jarjarjar"), tuple(RECORDS[0].interface.pack())])
def test_rows_are_lists(row):
    """What is no row is refused."""
    with pytest.raises(DeclarationError):
        Interface.unpack(row)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["get", "put", "__len__"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(position=st.integers(0, 10), value=values)
def test_any_row_is_understood_or_refused(position, value):
    """Whatever a peer sends is either a row that can be packed again, or a DeclarationError."""
    row = RECORDS[0].interface.pack()
    row[position] = value
    try:
        interface = Interface.unpack(row)
    except DeclarationError:
        return
    assert Interface.unpack(interface.pack()) == interface
    assert all(name in DUNDERS or not name.startswith("_") for name in interface.exposed)
    assert interface.shape is None or interface.shape in SHAPES


def test_examples_in_docstrings():
    """The examples run."""
    results = doctest.testmod(registry.declarations)
    assert results.attempted and not results.failed


def test_set_like_classes():
    """A class that keeps the contract of a set has its shape."""

    class Names(MutableSet):
        def __contains__(self, item): ...
        def __iter__(self): ...
        def __len__(self): ...
        def add(self, item): ...
        def discard(self, item): ...

    assert SharedObject("x", Names).interface.shape == "set"


def test_a_set_pops_nothing() -> None:
    """Which item `set.pop` takes hangs on the table's history, so that it would differ after a restart."""
    assert "pop" not in SharedObject("tags", set).interface.exposed
    assert "pop" in SharedObject("rows", list).interface.exposed
