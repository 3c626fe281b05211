"""Servers that die and go on from their log, and clients that come back to them: every seed keeps every promise.

Whoever is broken is found out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from linearizability import durable_clients, restarts
from linearizability.checker import Undecided
from linearizability.log_mutants import LOG_MUTANTS, RESUMING_MUTANTS
from linearizability.mutants import Mutant
from sizes import LONG, size

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
