"""`registry.testing.check` names what must not be logged, and nothing else."""

from __future__ import annotations

import functools
import gc
import inspect
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import checked_classes
import pytest
from checked_classes import declare

from registry import SharedObject
from registry.errors import DeclarationError, NotDurable, NotShareable, PluginError
from registry.hosting import touch
from registry.testing import CheckFailed, End, Finding, Report, Use, check
from registry.testing._sets import jumble

# Without other interpreters, for all that this one can see.
HERE: dict[str, Any] = {"seeds": ()}


def findings(declaration: SharedObject[Any], calls: Any = None, **options: Any) -> tuple[Finding, ...]:
    """Check something that must fail, and return what was found."""
    with pytest.raises(CheckFailed) as caught:
        check(declaration, calls, **options)
    return caught.value.findings


def line(cls: type, method: str, text: str) -> str:
    """Return where a text stands in a method, as findings write it."""
    rows, first = inspect.getsourcelines(getattr(cls, method))
    (place,) = [number for number, row in enumerate(rows, first) if text in row]
    return f"{Path(checked_classes.__file__).name}:{place}"


def only(found: tuple[Finding, ...], method: str) -> Finding:
    """Return the one finding in a method."""
    (finding,) = [finding for finding in found if finding.method == method]
    return finding


# -- sets

TAGS = declare(checked_classes.Tags, readonly=("loop", "text"))
ADD = [("add", tag, number) for number, tag in enumerate(("ant", "bee", "cat", "dog", "elk"))]


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("loop", "for tag in"),
        ("listed", "return list"),
        ("take", "pop()"),
        ("first_of_group", "iter("),
        ("text", "self.numbers"),
    ],
)
def test_the_order_of_a_set_that_is_kept_is_found(method: str, text: str) -> None:
    """Whoever lets the order of a set of the state show is named with the line, whatever the set holds."""
    (finding,) = findings(TAGS, [*ADD, (method,)])
    assert (finding.class_name, finding.method) == ("Tags", method)
    assert "goes through a set" in finding.what
    assert len(finding.places) == 1
    assert finding.places[0].endswith(line(checked_classes.Tags, method, text))
    assert "sort it" in finding.cure
    assert "dict.fromkeys" in finding.cure


@pytest.mark.parametrize(
    ("method", "where", "text"), [("local", "local", "for tag in"), ("helped", "_joined", "return")]
)
def test_the_order_of_a_set_that_is_made_in_a_method_is_found(method: str, where: str, text: str) -> None:
    """A set of texts that lives no longer than a call has another order in another interpreter."""
    (finding,) = findings(TAGS, [(method, "ant", "bee", "cat"), (method, "dog", "elk", "fox")])
    assert finding.method == method
    assert "in another interpreter" in finding.what
    assert finding.places[0].endswith(line(checked_classes.Tags, where, text))


def test_a_restored_set_of_numbers_is_given_another_order() -> None:
    """The order of small numbers is the same in every interpreter, so only another history of the set shows it."""
    (finding,) = findings(TAGS, [*ADD, ("listed",)], **HERE)
    assert "after a restore" in finding.what
    numbers = set(range(5))
    jumble(numbers)
    assert numbers == set(range(5))
    assert list(numbers) != list(range(5))


def test_made_up_calls_find_sets_as_well() -> None:
    """Without calls of the author every method of the class is tried, with values that its annotations ask for."""
    found = {finding.method for finding in findings(TAGS)}
    assert found == {"loop", "listed", "take", "first_of_group", "text", "local", "helped"}


# -- clocks, random numbers, what is outside

READER = declare(checked_classes.Reader)
NOW, RANDOM = "hosting.call().now", "hosting.call().random(n)"


@pytest.mark.parametrize(
    ("method", "doing", "cure"),
    [
        ("clock", "reads a clock: time.time()", NOW),
        ("quietly", "reads a clock: time.monotonic()", NOW),
        ("today", "reads a clock: date.today()", NOW),
        ("now", "reads a clock: datetime.now()", NOW),
        ("dice", "draws a random number: random.getrandbits(), by randint()", RANDOM),
        ("token", "draws a random number: os.urandom(), by token_hex()", RANDOM),
        ("bytes", "draws a random number: os.urandom()", RANDOM),
        ("id4", "draws a random number: os.urandom(), by uuid4()", RANDOM),
        ("environment", "reads the environment: os.environ, by get()", "argument"),
        ("pid", "looks at its process: os.getpid()", "hosting.call().caller"),
        ("file", "opens a file: open()", "threaded=True"),
        ("sleep", "sleeps: time.sleep()", "hosting.Waiters"),
    ],
)
def test_what_is_not_in_the_events_is_found(method: str, doing: str, cure: str) -> None:
    """A method that asks the world outside is named with what it calls, where, and what to call instead."""
    (finding,) = findings(READER, [(method,)], **HERE)
    assert (finding.class_name, finding.method, finding.what) == ("Reader", method, doing)
    first, last = line_range(checked_classes.Reader, method)
    assert first < int(finding.places[0].rpartition(":")[2]) <= last
    assert cure in finding.cure


def line_range(cls: type, method: str) -> tuple[int, int]:
    """Return the first and the last line of a method."""
    rows, first = inspect.getsourcelines(getattr(cls, method))
    return first, first + len(rows) - 1


def test_an_identifier_of_the_first_kind_is_found() -> None:
    """`uuid.uuid1` is found whatever it is made of on this machine."""
    assert all(finding.method == "id1" for finding in findings(READER, [("id1",)], **HERE))


def test_a_thread_is_found() -> None:
    """A method that starts a thread is named."""
    assert "starts a thread" in " ".join(finding.what for finding in findings(READER, [("thread",)], **HERE))


def test_a_clock_is_found_however_deep_it_is_read() -> None:
    """The place is that of the author's function that reads the clock, the method that which a client calls."""
    (finding,) = findings(READER, [("deep",)], **HERE)
    assert finding.method == "deep"
    assert finding.places[0].endswith(line(checked_classes, "_helper", "return function()"))


def test_a_clock_in_what_a_dataclass_makes_is_found_where_it_is_made() -> None:
    """The code of its `__init__` is in no file: the line is the author's that calls it."""
    (finding,) = findings(declare(checked_classes.Notes), [("write", "ant")], **HERE)
    assert finding.what == "reads a clock: datetime.now(), by __init__()"
    assert finding.places[0].endswith(line(checked_classes.Notes, "write", "Note(text)"))


def test_the_hash_of_a_text_is_found_where_it_shows() -> None:
    """`hash` of a text is another one under another seed; the call of it is named."""
    (finding,) = findings(READER, [("hashed", "ant")])
    assert finding.method == "hashed"
    assert "hash()" in finding.cure
    assert finding.places[0].endswith(line(checked_classes.Reader, "hashed", "return hash"))


def test_an_identity_is_found_where_it_shows() -> None:
    """`id` of an object is another one after a restore."""
    (finding,) = findings(READER, [("identity",)], **HERE)
    assert (finding.method, "id()" in finding.cure) == ("identity", True)


def test_the_time_zone_is_found() -> None:
    """What depends on the zone of the machine differs from interpreter to interpreter."""
    (finding,) = findings(READER, [("local_time",)])
    assert finding.method == "local_time"
    assert "fromtimestamp" in finding.cure


def test_hooks_are_watched_like_methods() -> None:
    """What the engine calls by itself is named too: at an alarm, and at the end of a session."""
    found = findings(declare(checked_classes.Alarmed), [("ring", 2.0)], **HERE)
    assert {(finding.method, finding.what) for finding in found} == {
        ("due", "reads a clock: time.time()"),
        ("owner_ended", "reads a clock: time.time()"),
    }


def test_the_factory_is_watched() -> None:
    """A default that reads a clock is found, also where attrs has written the code that calls it."""
    found = findings(declare(checked_classes.Born), [("age",)], **HERE)
    assert [(finding.method, finding.what) for finding in found] == [("__init__", "reads a clock: time.time()")]


# -- state

PUT = [("put", "ant"), ("put", "bee"), ("put", "bee")]


def test_an_attribute_that_is_not_saved_is_found() -> None:
    """An attribute that is no field of an attrs class is named, with the line that sets it."""
    (finding,) = findings(declare(checked_classes.Forgetful), [("get",), ("add", 3)], **HERE)
    assert (finding.class_name, finding.method) == ("Forgetful", "add")
    assert "leaves attribute 'last' out of the state" in finding.what
    assert finding.places[0].endswith(line(checked_classes.Forgetful, "add", "self.last ="))


def test_an_attribute_that_state_forgets_is_found() -> None:
    """What state() does not tell is named by itself, and so is the method whose result then differs."""
    found = findings(declare(checked_classes.Partial), PUT, **HERE)
    assert [finding.method for finding in found] == ["put", "put"]
    assert "leaves attribute 'count' out of the state: after a restore it is 0 and was 1" in found[0].what
    assert "has another result after a restore: 2 and 1" in found[1].what


def test_a_state_that_is_not_taken_back_as_it_was_told_is_found() -> None:
    """state() and load() that are no round trip are named with what differs."""
    finding = findings(declare(checked_classes.Twisted), PUT, **HERE)[0]
    assert finding.method == "put"
    assert "a state that does not come back: attribute 'items' differs after load()" in finding.what


def test_a_state_that_cannot_be_loaded_is_found() -> None:
    """A load() that raises is told with what it raised, once."""
    (finding,) = findings(declare(checked_classes.Unloadable), PUT, **HERE)
    assert "a state that cannot be restored: LookupError: not this" in finding.what


def test_a_value_that_cannot_be_kept_is_found() -> None:
    """An attribute that is given what no state can hold is named with the method that does it."""
    (finding,) = findings(declare(checked_classes.Overfull), [("keep", 1), ("keep", 2)], **HERE)
    assert finding.method == "keep"
    assert "leaves a state that cannot be kept, attribute 'last'" in finding.what
    assert finding.places[0].endswith(line(checked_classes.Overfull, "keep", "self.last"))


def test_a_read_that_changes_the_state_is_found() -> None:
    """A method that is declared readonly and changes what the state shows is named with the attribute."""
    calls = [("put", "ant", 1), ("get", "ant"), ("get", "ant")]
    (finding,) = findings(declare(checked_classes.Peeked, readonly=("get",)), calls, **HERE)
    assert finding.method == "get"
    assert "is declared readonly and changes attribute 'reads'" in finding.what
    assert finding.places[0].endswith(line(checked_classes.Peeked, "get", "self.reads"))
    assert check(declare(checked_classes.Peeked), calls, **HERE).ran == ("get", "put")


def test_a_wait_that_is_not_declared_is_found() -> None:
    """The server refuses it, so that nobody ever waits; a check says so where a test would wait in vain."""
    calls = [("wait",), Use("wait", 1.0, session=2), ("wake",)]
    (finding,) = findings(declare(checked_classes.Innocent), calls, **HERE)
    assert (finding.method, finding.what) == ("wait", "waits, and is not declared to (in call 1, wait())")
    assert finding.cure == "name it in waiting=, so that its calls have no deadline of their own"
    assert check(INNOCENT, calls, **HERE).ran == ("wait", "wake")


def test_a_read_that_has_an_effect_is_found() -> None:
    """What a read may not ask for is told with the cure, not only to who calls it."""
    calls = [("wait",), ("wake",), ("draw",)]
    declaration = declare(checked_classes.Innocent, readonly=("wake",), waiting=("wait",))
    with pytest.raises(CheckFailed, match=r"'innocent' must not be served as it is declared: 1 finding\n") as caught:
        check(declaration, calls, **HERE)
    (finding,) = caught.value.findings
    assert (finding.method, finding.cure) == ("wake", "take it out of readonly=")
    assert finding.what == "is declared readonly and has an effect (in call 2, wake())"


def test_a_result_that_cannot_cross_is_found() -> None:
    """Once for a method, with the place in the result."""
    (finding,) = findings(declare(checked_classes.Generous), [("give",), ("give",)], **HERE)
    assert finding.method == "give"
    assert "returns what cannot cross: the result of generous:checked, value[0] of class object" in finding.what
    assert "declare the class as a ValueType" in finding.cure
    assert finding.places[0].endswith(line(checked_classes.Generous, "give", "def give"))


VALUES = """
from parcel_plugin import DEPOT
from registry.testing import CheckFailed, check

calls = [("put", 1, 12), ("everything",)]
try:
    check(DEPOT, calls)
except CheckFailed as error:
    print(error)
report = check(DEPOT, calls, plugins=["parcel_plugin"])
print(report.missed, report.skipped, report.seeds)
"""


def test_classes_that_a_plugin_declares_may_be_kept() -> None:
    """With the plugin named the state is one, here and in other interpreters; without it the cure is told."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", VALUES],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert "2. Depot.put() leaves a state that cannot be kept, attribute 'parcels'" in done.stdout
    assert "declare the class as a ValueType in a plugin and name that in check(plugins=[...])" in done.stdout
    assert done.stdout.splitlines()[-1] == "() () (1, 2, 3)"


def test_a_plugin_that_is_not_there_is_told() -> None:
    """Before anything is played."""
    with pytest.raises(PluginError, match="no_such_plugin"):
        check(INNOCENT, [("wake",)], plugins=["no_such_plugin"], **HERE)


def test_state_in_the_class_is_found() -> None:
    """What is kept in the class is not what it was when a moment is played again."""
    found = findings(declare(checked_classes.Common), PUT, **HERE)
    assert {finding.method for finding in found} == {"put"}
    assert "not in its class" in found[0].cure


def test_state_in_the_module_is_found_where_moments_come_in_another_order() -> None:
    """What is kept in the module shows in an interpreter that plays the last moment first."""
    found = findings(declare(checked_classes.Memo), [("number", "ant"), ("number", "bee")])
    assert {finding.method for finding in found} == {"number"}
    assert "in another interpreter" in found[0].what


def test_an_argument_that_all_objects_share_is_found() -> None:
    """A list that the factory gives to every object is what the last one has made of it."""
    (finding,) = findings(SharedObject("shared", functools.partial(checked_classes.Record, [])), PUT, **HERE)
    assert finding.method == "__init__"
    assert "has another attribute 'rows' after a restore: [] and ['ant'" in finding.what


# -- what may be logged

INNOCENT = declare(checked_classes.Innocent, readonly=("ordered", "everything", "ask"), waiting=("wait",))


def test_an_innocent_class_passes() -> None:
    """Sets that are sorted, asked and counted, times and random bytes of the step, imports and log lines are fine."""
    report = check(INNOCENT)
    assert report.skipped == ()
    assert report.seeds == (1, 2, 3)
    assert "fails" in report.missed
    assert {"ask", "bounds", "draw", "imports", "log_line", "ordered", "stamp", "wait", "wake"} <= set(report.ran)
    assert report.calls >= 80


def test_an_innocent_class_passes_with_many_sessions_and_deaths() -> None:
    """Waits, timeouts, and the ends of threads and processes are a series like any other."""
    calls = [
        *ADD,
        Use("wait", session=1),
        Use("wait", 5.0, session=2, owner=3),
        Use("wait", timeout=1.0, session=3),
        Use("ordered", session=4, after=2.0),
        End(2, owner=3),
        ("wake",),
        Use("remove", "ant", session=2),
        End(2, after=1.0),
        End(9),
        ("everything",),
    ]
    report = check(INNOCENT, calls)
    assert report.calls == len(calls) - 3
    assert report.ran == ("add", "everything", "ordered", "remove", "wait", "wake")
    assert "stamp" in report.missed


def test_what_a_class_derives_may_be_left_out() -> None:
    """A cached property is made again by itself; another attribute can be named as derived."""
    assert check(declare(checked_classes.Record), **HERE).missed == ()
    calls = [("put", "ant"), ("find", "ant"), ("find", "bee")]
    (finding,) = findings(declare(checked_classes.Derived), calls, **HERE)
    assert "'table'" in finding.what
    assert "derived" in finding.cure
    check(declare(checked_classes.Derived), calls, derived=["table"], **HERE)


@pytest.mark.parametrize("cls", [dict, list, set])
def test_builtin_containers_pass(cls: type) -> None:
    """A plain container may be logged; what clients make of the order of a set is theirs."""
    assert check(declare(cls)).calls > 50


@pytest.mark.parametrize("per", ["name", "server", "call"])
def test_it_does_not_matter_how_many_objects_there_are(per: Any) -> None:
    """Objects by name, one for all, and one for each call are checked alike."""
    assert check(declare(checked_classes.Record, per=per), [("put", "ant"), ("find", "ant")], **HERE).missed == ()


# -- the series


class Desk:
    """Gives out tickets, and takes them back."""

    def __init__(self, first: int, *, step: int = 1) -> None:
        self.next, self.step = first, step
        self.out: dict[int, str] = {}

    def take(self, who: str) -> list[int]:
        self.next += self.step
        self.out[self.next] = who
        return [self.next]

    def give(self, ticket: int) -> str:
        return self.out.pop(ticket)


DESK = SharedObject("desk", Desk)


def test_a_result_can_be_an_argument() -> None:
    """A use stands for its result in a later one, and an item of it for an item."""
    took = Use("take", "ant")
    report = check(DESK, [took, Use("give", took[0])], args=(5,), kwargs={"step": 2}, **HERE)
    assert report.ran == ("give", "take")
    with pytest.raises(ValueError, match=r"<take\('ant'\)> is used as an argument and has no result by then"):
        check(DESK, [Use("give", took[0]), took], args=(5,), **HERE)


def test_made_up_calls_use_results() -> None:
    """Numbers that a class gives out find their way back to it."""
    assert check(SharedObject("desk", Desk2), **HERE).missed == ()


class Desk2(Desk):
    """Gives out plain numbers."""

    def __init__(self) -> None:
        super().__init__(100)

    def take(self, who: str) -> int:  # type: ignore[override]
        return super().take(who)[0]


def test_two_checks_make_the_same_calls() -> None:
    """Made-up calls are the same each time."""
    assert check(INNOCENT, **HERE) == check(INNOCENT, **HERE)


@pytest.mark.parametrize("call", [(), "add", 3, ("add",), (3, "add")])
def test_what_is_no_call_is_refused(call: object) -> None:
    """A series holds tuples that begin with a name, uses and ends."""
    if call == ("add",):
        check(INNOCENT, [call], **HERE)
        return
    with pytest.raises(TypeError, match="calls are tuples"):
        check(INNOCENT, [call], **HERE)  # type: ignore[list-item]


# -- what is refused before anything runs


def test_what_cannot_be_made_is_told_as_it_is() -> None:
    """What keeps an object from being made is raised by itself."""
    with pytest.raises(TypeError, match=r"desk is defined by \(first: 'int', \*, step: 'int' = 1\)"):
        check(DESK)
    with pytest.raises(NotDurable, match="Lately cannot be kept"):
        check(SharedObject("lately", Lately))
    with pytest.raises(NotShareable):
        check(DESK, args=(object(),))


class Lately:
    """Cannot be captured from the beginning."""

    def __init__(self) -> None:
        self.thing = object()

    def get(self) -> None:
        return None


def test_a_threaded_class_has_nothing_to_check() -> None:
    """What runs on threads is never logged, and is refused."""
    with pytest.raises(DeclarationError, match=r"desk\.threaded must be False"):
        check(SharedObject("desk", Desk, threaded=True))
    with pytest.raises(DeclarationError, match="must be a SharedObject"):
        check(Desk)  # type: ignore[arg-type]


# -- what is told


def test_several_findings_are_told_together() -> None:
    """The text has every finding, with its place and its cure."""
    with pytest.raises(CheckFailed) as caught:
        check(READER, [("clock",), ("dice",), ("quietly",), ("clock",)], **HERE)
    assert len(caught.value.findings) == 3
    text = str(caught.value)
    assert text.startswith("shared type 'reader' must not be served with a log: 3 findings\n1. ")
    for finding in caught.value.findings:
        assert f"Reader.{finding.method}() {finding.what}\n   at {finding.places[0]}\n   {finding.cure}" in text
    assert isinstance(caught.value, AssertionError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


def test_a_class_inside_a_function_is_not_tried_elsewhere() -> None:
    """What another interpreter cannot import is checked here alone, and the report says so."""

    class Inner(checked_classes.Record):
        pass

    report = check(SharedObject("inner", Inner))
    assert report.seeds == ()
    (reason,) = report.skipped
    assert "Inner is made inside a function: put it at the top of a module" in reason


def test_a_factory_without_a_name_is_found_by_its_declaration() -> None:
    """A lambda has no name to import, and the declaration at the top of a module has one."""
    (finding,) = findings(checked_classes.LAMBDA, [*ADD, ("loop",)])
    assert finding.method == "loop"
    report = check(SharedObject("nameless", functools.partial(checked_classes.Record)))
    assert "has a name at the top of a module" in report.skipped[0]


def test_under_a_profiler_the_rest_is_checked() -> None:
    """A profiler that is running is left alone; the report says what was not done for it."""
    sys.setprofile(lambda *_: None)
    try:
        report = check(INNOCENT, ADD, **HERE)
    finally:
        sys.setprofile(None)
    assert report.skipped == ("clocks, random numbers and the like were not watched for: a profiler is running",)


def test_what_happens_when_garbage_is_collected_is_nobodys_doing() -> None:
    """A collection that falls into a step, and what others have hooked to it, is not laid to the method."""

    def timed(phase: str, info: dict[str, int]) -> None:
        time.perf_counter()

    threshold = gc.get_threshold()
    gc.callbacks.append(timed)
    gc.set_threshold(1)
    try:
        assert check(declare(checked_classes.Record), **HERE).missed == ()
        assert gc.isenabled()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(timed)


def test_the_profile_is_put_back() -> None:
    """Nothing is left behind, also where a class fails."""
    findings(READER, [("clock",)], **HERE)
    assert sys.getprofile() is None


PROGRAM = '''
"""A program that has a class of its own, and checks it."""
from registry import SharedObject
from registry.testing import CheckFailed, check

class Names:
    def __init__(self):
        self.names = {}
    def put(self, *names: str):
        return [self.names.setdefault(name, len(self.names)) for name in %s(names)]

print("this is printed")
try:
    print(check(SharedObject("names", Names), [("put", "ant", "bee", "cat"), ("put", "dog", "elk", "fox")]))
except CheckFailed as error:
    print(error)
'''


@pytest.mark.parametrize(("how", "what"), [("list", "seeds=(1, 2, 3), skipped=()"), ("set", "1. Names.put() goes")])
def test_a_program_can_check_its_own_class(tmp_path: Path, how: str, what: str) -> None:
    """A script is read by the other interpreters as far as its check, without starting any in turn."""
    program = tmp_path / "names.py"
    program.write_text(PROGRAM % how, encoding="utf-8")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.count("this is printed") == 1
    assert what in done.stdout


def test_a_class_that_is_typed_at_a_prompt_is_checked_there() -> None:
    """At a prompt there is no file that others could read: the report says so."""
    program = PROGRAM % "list"
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, timeout=50, check=True)
    assert "Names was typed at a prompt: put it into a file" in done.stdout


def test_a_module_that_others_cannot_import_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that fails where it is imported anew is a reason, not an error."""
    (tmp_path / "moody.py").write_text(
        "import os\nif os.environ.get('PYTHONHASHSEED') == '77':\n    raise OSError('not today')\n"
        "class Moody:\n    def ask(self): return 1\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "moody", raising=False)
    import moody  # type: ignore[import-not-found]

    report = check(SharedObject("moody", moody.Moody), seeds=(1, 77))
    assert isinstance(report, Report)
    assert report.seeds == ()
    assert "moody cannot be imported in another interpreter: OSError: not today" in report.skipped[0]


# -- what is keyed


class Newest:
    """Keep what was written last, and forget to say what that drives out."""

    def __init__(self) -> None:
        self.entries: dict[Any, Any] = {}

    def get(self, key: str) -> object:
        return self.entries.get(key)

    def count(self) -> int:
        return len(self.entries)

    def put(self, key: str, value: int) -> None:
        self.entries[key] = value
        if len(self.entries) > 2:
            self.drop(next(iter(self.entries)))

    def drop(self, key: str) -> None:
        self.entries.pop(key, None)


class Told(Newest):
    """As `Newest`, and says it."""

    def drop(self, key: str) -> None:
        super().drop(key)
        touch(key)


PUTS = [("put", key, 1) for key in ("ant", "bee", "cat", 1, True)]
KEYED: dict[str, Any] = {"readonly": ("get", "count"), "keyed": ("get", "put")}


@pytest.mark.parametrize("reads", [[], [("get", "ant")]], ids=["made up", "given"])
def test_a_keyed_method_that_changes_another_key_is_named(reads: list[Any]) -> None:
    """What clients have cached of that key would stay, so the method, the key and the cure are told."""
    with pytest.raises(CheckFailed) as caught:
        check(SharedObject("newest", Newest, **KEYED), [*PUTS, *reads], **HERE)
    (finding,) = caught.value.findings
    assert (finding.method, finding.what) == (
        "put",
        "is declared keyed and changes what get('ant') returns, which clients have cached (in call 3, put('cat', 1))",
    )
    assert finding.cure == (
        "name these keys by registry.hosting.touch() where they change, or take the method out of keyed="
    )
    assert str(caught.value).startswith("shared type 'newest' must not be served as it is declared: 1 finding\n")


def test_keyed_methods_that_tell_what_they_touch_are_fine() -> None:
    """What is touched by name, what equals the key, and what is not keyed, may change."""
    assert check(SharedObject("told", Told, **KEYED), PUTS, **HERE).ran == ("put",)
    unkeyed = SharedObject("newest", Newest, readonly=("get", "count"))
    assert check(unkeyed, [*PUTS, ("get", "ant")], **HERE).ran == ("get", "put")
