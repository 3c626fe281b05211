"""What all laws have in common: where they are tried, with what, and what holds for every shared object."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.client import ManagerClient
from registry.declarations import SharedObject
from registry.errors import NoSuchObject
from registry.testing import Server, check, until

F = TypeVar("F", bound=Callable[..., Any])

#: Where laws are tried: ``memory://``, a server without a log, and servers whose log is ``process`` or ``disk``.
PLACES: Final = ("memory://", "server", "process", "disk")
SERVED: Final = frozenset({"server", "process", "disk"})
DURABLE: Final = frozenset({"process", "disk"})

EXAMPLES: Final = 25  # series of calls that are compared with those of a builtin object, in each place
STEPS: Final = 30  # calls in the longest of them
PATIENCE: Final = 30.0  # seconds after which what should happen at once is taken for never

# How dunders are called, on a proxy and on a builtin object alike.
_OPERATIONS: Final[dict[str, Callable[..., Any]]] = {
    "__bool__": bool,
    "__contains__": operator.contains,
    "__delitem__": operator.delitem,
    "__getitem__": operator.getitem,
    "__iter__": list,
    "__len__": len,
    "__reversed__": lambda value: list(reversed(value)),
    "__setitem__": operator.setitem,
}


class Step(NamedTuple):
    """A call of a method, to be made of a shared object and of a builtin one."""

    method: str
    args: tuple[Any, ...] = ()
    is_silent: bool = False  # what it returns is for the class to say

    def __call__(self, target: Any) -> Any:
        """Make it."""
        operation = _OPERATIONS.get(self.method)
        if operation is not None:
            return operation(target, *self.args)
        result = getattr(target, self.method)(*self.args)
        return None if self.is_silent else result

    def __repr__(self) -> str:
        return f"{self.method}({', '.join(map(repr, self.args))})"


def step(method: str, *args: st.SearchStrategy[Any], is_silent: bool = False) -> st.SearchStrategy[Step]:
    """Return calls of a method with arguments like these."""
    return st.tuples(*args).map(lambda drawn: Step(method, drawn, is_silent))


def needs(*methods: str) -> Callable[[F], F]:
    """Mark a law that holds for classes which expose these methods."""

    def mark(law: F) -> F:
        law.needs = methods  # type: ignore[attr-defined]
        return law

    return mark


def only(places: frozenset[str]) -> Callable[[F], F]:
    """Mark a law that can be tried in these places alone."""

    def mark(law: F) -> F:
        law.only = places  # type: ignore[attr-defined]
        return law

    return mark


class Place:
    """Where the laws of a class are tried.

    Attributes:
        name: One of ``"memory://"``, ``"server"``, ``"process"`` and ``"disk"``.
        server: The server there; in ``memory://`` there is none of a test's own.
        client: A client of it.
    """

    def __init__(self, name: str, plugins: Sequence[Any]) -> None:
        self.name = name
        self.server: Server
        self._own: Server | None = None
        if name == "memory://":
            self.client = ManagerClient(name, plugins=plugins).connect()
            return
        log: Any = "memory" if name == "server" else name
        self.server = self._own = Server(*plugins, log=log).start()
        try:
            self.client = self.server.connect()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<place {self.name}>"

    def connect(self, **options: Any) -> ManagerClient:
        """Return a client with a session of its own; in ``memory://`` there is one session only."""
        return self.client if self._own is None else self._own.connect(**options)

    def close(self) -> None:
        """End it."""
        if self._own is not None:
            self._own.close()
        else:
            self.client.close()


class Laws:
    """What holds for every shared object. The laws of a shape derive from this.

    Attributes:
        declaration: What is tried.
        args: What an object is made with.
        kwargs: What it is made with, by name.
        plugins: What the server needs besides the declaration, such as the plugin of types in its values.
        places: Where it is tried.
        shape: What the declaration must be, for the laws of a shape.
    """

    declaration: ClassVar[SharedObject[Any]]
    args: ClassVar[tuple[Any, ...]] = ()
    kwargs: ClassVar[Mapping[str, Any]] = {}
    plugins: ClassVar[Sequence[Any]] = ()
    places: ClassVar[Sequence[str]] = PLACES
    shape: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declaration = getattr(cls, "declaration", None)
        if declaration is None:
            return  # the laws of a shape
        if not isinstance(declaration, SharedObject):
            raise TypeError(f"{cls.__name__}.declaration must be a SharedObject, not {declaration!r}")
        interface = declaration.interface
        if cls.shape and interface.shape != cls.shape:
            raise TypeError(
                f"{cls.__name__} has the laws of a {cls.shape}, and {declaration.typeid!r} is declared as "
                f"{interface.shape or 'no shape'}: say shape={cls.shape!r} in its SharedObject"
            )
        unknown = set(cls.places) - set(PLACES)
        if unknown:
            raise TypeError(f"{cls.__name__}.places are out of {PLACES}, and not {sorted(unknown)}")
        for name in dir(cls):
            if name.startswith("test_") and not cls.applies(getattr(cls, name)):
                setattr(cls, name, None)  # pytest collects what can be called

    @classmethod
    def applies(cls, law: Any) -> bool:
        """Tell whether a law says something of the declaration: its methods are there, and a place to try it."""
        places = cls._places_of(law)
        return set(getattr(law, "needs", ())) <= set(cls.declaration.interface.exposed) and bool(places)

    @classmethod
    def _places_of(cls, law: Any) -> list[str]:
        allowed = getattr(law, "only", frozenset(PLACES))
        if cls.declaration.threaded:
            allowed = allowed - DURABLE  # it is in no log
        return [place for place in cls.places if place in allowed]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Have each law tried in each place."""
        if "place" in metafunc.fixturenames:
            metafunc.parametrize("place", self._places_of(metafunc.function), indirect=True)

    @pytest.fixture
    def place(self, request: pytest.FixtureRequest) -> Iterator[Place]:
        """Begin a place for one law, and end it."""
        place = Place(request.param, [self.declaration, *self.plugins])
        yield place
        place.close()

    @pytest.fixture
    def subject(self, place: Place) -> Any:
        """Make an object."""
        return self.make(place.client, "it")

    def make(self, client: ManagerClient, name: str) -> Any:
        """Return a proxy for an object: that of a name, where the declaration has names."""
        names = (name,) if self.declaration.per == "name" else ()
        return client.open(self.declaration, *names, *self.args, **self.kwargs)

    def again(self, client: ManagerClient, subject: Any) -> Any:
        """Return a proxy of another client for the object that `subject` is."""
        remote = subject._remote
        return client._home.find(remote.typeid, remote.name)

    # -- laws

    def test_its_text_says_what_it_is(self, place: Place, subject: Any) -> None:
        """`repr` names type, object and server, without asking anybody."""
        before = place.client._home.link()._next
        text = repr(subject)
        assert text.startswith(f"<shared {self.declaration.typeid}") and text.endswith(
            f" on {place.client._home.address}>"
        )
        assert place.client._home.link()._next == before

    @only(SERVED)
    def test_its_pickle_is_a_handle(self, place: Place, subject: Any) -> None:
        """What comes out of a pickle is the same object, not a copy of it; the key is nowhere in it."""
        pickled = pickle.dumps(subject)
        assert place.server.authkey not in pickled
        remote, found = subject._remote, pickle.loads(pickled)._remote
        assert (found.typeid, found.name) == (remote.typeid, remote.name)

    def test_what_it_does_not_have_is_named(self, subject: Any) -> None:
        """A method that is not exposed is an `AttributeError` which lists those that are."""
        with pytest.raises(AttributeError, match=f"has no method 'no_such_method'; it has .*{self._some_method()}"):
            subject.no_such_method

    def test_it_may_be_logged(self) -> None:
        """A server that replays its log has the same object again: see `registry.testing.check`."""
        if not self.declaration.threaded:
            check(self.declaration, args=self.args, kwargs=self.kwargs, plugins=self.plugins, seeds=())

    # -- for laws

    def _some_method(self) -> str:
        return self.declaration.interface.exposed[0]

    def agree(
        self,
        place: Place,
        steps: st.SearchStrategy[Step],
        model: Callable[[], Any],
        content: Callable[[Any], Any],
        fill: Callable[[Any, Any], None],
    ) -> None:
        """See any series of calls do to a shared object what it does to a builtin one.

        Args:
            place: Where.
            steps: The calls.
            model: Makes a builtin object, which may have something in it.
            content: Returns what an object holds, as something that can be compared.
            fill: Gives a new shared object the content of a builtin one.
        """
        clients = [place.client, place.connect()]
        numbers = count(1)
        calls = st.tuples(steps, st.booleans())

        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.lists(calls, max_size=STEPS) | st.lists(calls, min_size=STEPS // 2, max_size=STEPS))
        def run(series: list[tuple[Step, bool]]) -> None:
            ours = self.make(clients[0], f"it{next(numbers)}")
            if self.declaration.per == "server":
                clients[0].delete(ours)
            theirs = model()
            fill(ours, theirs)
            proxies = (ours, self.again(clients[1], ours))
            for step, other in series:
                assert outcome(proxies[other], step) == outcome(theirs, step), step
                # Whoever has made the call, everybody sees it.
                assert [content(proxy) for proxy in proxies] == [content(theirs)] * 2, step

        run()

    def outlives(self, log: str, before: Callable[[Any], Any], after: Callable[[Any], Any]) -> None:
        """See what an object tells stay the same when its server is killed, and when it is stopped.

        Args:
            log: The server's.
            before: Does something to an object, and returns what it tells.
            after: Returns what it tells then.
        """
        kind: Any = log
        with Server(self.declaration, *self.plugins, process=True, log=kind) as server:
            subject = self.make(server.connect(), "it")
            told = before(subject)
            server.kill()  # the next life replays what was called
            server.start()
            server.restart()  # and the one after that reads what its predecessor has left in order
            assert after(subject) == told


class Other:
    """Somebody else: a thread, with a session of its own where that can be."""

    def __init__(self, place: Place) -> None:
        self.client = place.connect()
        self._is_shared = self.client is place.client
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._is_shared:
            self.client.close()
        self._pool.shutdown()

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function there, and return what it returns."""
        return self.submit(function, *args, **kwargs).result(PATIENCE)

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """As `run`, but do not wait."""
        return self._pool.submit(function, *args, **kwargs)


def waiting(client: ManagerClient, subject: Any, number: int) -> None:
    """Wait until so many wait in an object."""

    def are_there() -> bool:
        try:
            return len(client.statistics(subject)["waiters"]) == number
        except NoSuchObject:
            return False  # nobody has called it yet

    until(are_there, PATIENCE)


def settled(future: Future[Any]) -> Any:
    """Return the result of something that is to come by itself."""
    return future.result(PATIENCE)


def outcome(target: Any, step: Step) -> tuple[str, Any]:
    """Return what a call returns, with its type, or the class of what it raises."""
    try:
        value = step(target)
    except Exception as error:  # noqa: BLE001 - whatever it is, both are to raise it
        return "raised", type(error)
    return "returned", plain(value)


def plain(value: Any) -> Any:
    """Return a value so that equal ones are of the same types, all the way down."""
    if isinstance(value, dict):
        return "dict", [(plain(key), plain(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return "tuple" if isinstance(value, tuple) else "list", [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return "set", frozenset(value)
    return type(value), value
