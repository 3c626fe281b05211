"""Servers that die and go on from their log, and clients that come back to them: every seed keeps every promise.

Whoever is broken is found out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from linearizability import durable_clients, restarts
from linearizability.attempts import CALLS, Record
from linearizability.checker import Undecided
from linearizability.log_mutants import LOG_MUTANTS, RESUMING_MUTANTS
from linearizability.mutants import Mutant
from sizes import LONG, size

from registry._attachments import Client
from registry._leaves import Caller
from registry._pending import Pending
from registry._wire import Attach, Frame, Kind

pytestmark = pytest.mark.once

SEEDS = size(150, 10_000)
CLIENT_SEEDS = size(100, 10_000)


def test_a_seed_is_a_history_of_lives() -> None:
    """What a seed has shown it shows again."""
    for record in (restarts.record, durable_clients.record):
        assert [record(seed) for seed in range(6)] == [record(seed) for seed in range(6)]
        assert record(1).history != record(2).history


def test_the_first_seed_of_a_process_is_as_any_other() -> None:
    """What is made once in a process makes no difference."""
    program = "from linearizability.durable_clients import record; print(record(1) == record(1))"
    here = Path(__file__).parent
    ran = subprocess.run([sys.executable, "-c", program], cwd=here, capture_output=True, text=True, timeout=60)
    assert (ran.stdout.strip(), ran.stderr) == ("True", "")


@pytest.mark.parametrize(("died", "logged"), [(False, False), (False, True), (True, False), (True, True)])
def test_a_life_that_is_over_has_been_told_only_what_it_logged(died: bool, logged: bool) -> None:
    """A reply that was acknowledged by a read alone is one that nobody knows of after the death of the server."""
    record = Record()
    record.lives["p1.1"] = 1
    record.names["p1", 1] = "queue:q"
    frame = Frame(Kind.REPLY, 1, 0, 0, 2, b"")
    get = Pending(Kind.CALL, 1, "get", b"", None, False, waiting=True, seq=CALLS + 1)
    taken = record.begin("p1", 0, get)
    record.arrived(get, frame, 0)
    record.end(taken, frame, None)
    get.delivered = True
    later = Pending(Kind.CALL, 1, "qsize", b"", None, not logged, seq=CALLS + 2)
    telling = record.begin("p1", 0, later)
    if died:
        record.lose(3, {taken.call: 2} | ({telling.call: 3} if logged else {}))
    record.arrived(later, frame, 0)
    record.end(telling, frame, None)
    assert record.unheard("p1.1")["queue:q"] == (((taken.call, False),) if died and not logged else ())


def test_a_cache_shows_what_is_lost_until_another_life_answers() -> None:
    """It belongs to the history that is lost; once somebody knows the next life, it breaks a promise."""
    record = Record()
    record.lives["p1.1"] = record.lives["p2.1"] = 1
    record.seen["p1.1"], record.seen["p2.1"] = 5, 3
    record.lose(3, {})
    record.looked("p1.1", 0, "counter:c", "get", None, record.tick(), 1, 1)
    record.looked("p2.1", 0, "counter:c", "get", None, record.tick(), 0, 1)
    assert [(number, look.result) for number, look in record.late_looks] == [(0, 1)]
    assert [look.result for look in record.looks] == [0]
    assert not record.broken
    record.answers[2] = record.tick()
    record.looked("p1.1", 0, "counter:c", "get", None, record.tick(), 1, 1)
    assert record.broken == ["counter:c was read as in a life of the server after which another has answered"]


def test_an_answer_that_is_dropped_with_its_connection_has_not_been_seen() -> None:
    """It overtook the note that its undo was sent, so that the undo is sent again: its event may be lost untold."""
    record = Record()
    slot = Pending(Kind.CALL, 1, "get", b"", None, False, waiting=True, seq=CALLS + 1)
    record.begin("p1", 0, slot)
    assert record.arrived(slot, Frame(Kind.REPLY, 1, 0, 0, 2, b""), 0) == 0
    seen = record.arrived(slot, Frame(Kind.CANCELLED, 1, 0, 0, 5, b""), 0)
    record.dropped(slot, seen)
    assert record.seen == {"p1.1": 2}


@pytest.mark.parametrize(("generation", "is_judged"), [(3, False), (6, True)])
def test_who_attaches_late_is_judged_by_the_latest_connection(generation: int, is_judged: bool) -> None:
    """What a session had told before it was attached in a later life says nothing of what it has seen there."""
    world = durable_clients.DurableWorld(0)
    world.sessions[b"k" * 16] = "p1.1"
    world.record.seen["p1.1"] = 10
    world.kept = [6]
    hello = Attach(b"k" * 16, 1, "h", "t", "p1", "1", 0, {}, resumes=True, life=world.host.identity.life)
    client = Client(hello.key, Caller("h", 1, "t", "", "p1"), "", None)
    client.generation = 5
    world.host.attaching = generation
    world.host._loss_of(hello, client)
    assert bool(world.record.broken) == is_judged


@pytest.mark.timeout(7200 if LONG else 300)
def test_nothing_is_missing_after_a_death_of_the_server() -> None:
    """Killed between any two events and their records, it goes on as if nothing had been; what is lost is told."""
    calls = lives = lost = earlier = 0
    for seed in range(SEEDS):
        recording = restarts.record(seed)
        problem = restarts.wrong(recording)
        assert not problem, f"seed {seed}: {problem}\nto see it again: linearizability.restarts.record({seed})"
        calls += len(recording.history)
        lives += recording.lives
        lost += recording.lost
        earlier += len(recording.earlier)
    assert calls > 20 * SEEDS
    assert lives > 3 * SEEDS
    assert min(lost, earlier) > SEEDS / 10


@pytest.mark.timeout(7200 if LONG else 300)
def test_clients_go_on_after_a_death_of_the_server() -> None:
    """Real clients see a pause; only what is lost with the power, or took too long, is told, and to those concerned."""
    calls = lives = lost = earlier = 0
    for seed in range(CLIENT_SEEDS):
        recording = durable_clients.record(seed)
        problem = durable_clients.wrong(recording)
        assert not problem, f"seed {seed}: {problem}\nto see it again: linearizability.durable_clients.record({seed})"
        calls += len(recording.history)
        lives += recording.lives
        lost += recording.lost
        earlier += len(recording.earlier)
    assert calls > 20 * CLIENT_SEEDS
    assert lives > 3 * CLIENT_SEEDS
    assert min(lost, earlier) > CLIENT_SEEDS / 10


@pytest.mark.parametrize("mutant", LOG_MUTANTS, ids=lambda mutant: mutant.title)
def test_a_broken_server_is_found_out(mutant: Mutant) -> None:
    """Each way to be broken shows in one of a few seeds."""
    with mutant.active():
        for seed in range(200):
            try:
                if restarts.wrong(restarts.record(seed, mutant.kinds), limit=20_000):
                    return
            except Undecided:
                continue  # the next one may be easier
            except Exception:  # noqa: BLE001 - what is broken may fall over, which is not for the laws to find
                continue
    pytest.fail("nobody has noticed")


@pytest.mark.parametrize("mutant", RESUMING_MUTANTS, ids=lambda mutant: mutant.title)
def test_a_client_that_does_not_come_back_as_it_should_is_found_out(mutant: Mutant) -> None:
    """Each way to be broken shows in one of some seeds."""
    with mutant.active():
        for seed in range(300):
            try:
                if durable_clients.wrong(durable_clients.record(seed, mutant.kinds), limit=20_000):
                    return
            except Undecided:
                continue
            except Exception:  # noqa: BLE001 - as above
                continue
    pytest.fail("nobody has noticed")


def test_there_are_broken_servers_enough() -> None:
    """Among them is one for each type, and each leaves no trace."""
    assert len(LOG_MUTANTS) >= 20
    assert {kind for mutant in LOG_MUTANTS for kind in mutant.kinds} == set(restarts.KINDS)
    every = [*LOG_MUTANTS, *RESUMING_MUTANTS]
    before = [[owner.__dict__.get(name) for owner, name, _ in mutant.changes] for mutant in every]
    for mutant in every:
        with mutant.active():
            pass
    assert before == [[owner.__dict__.get(name) for owner, name, _ in mutant.changes] for mutant in every]
