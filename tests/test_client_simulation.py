"""Real clients in a simulated world: every seed keeps every promise, and broken clients are found out."""

from __future__ import annotations

import pytest
from linearizability.checker import Undecided, check_objects
from linearizability.client_mutants import CLIENT_MUTANTS
from linearizability.clients import KINDS, Recording, record
from linearizability.mutants import Mutant
from sizes import LONG, size

pytestmark = pytest.mark.once

SEEDS = size(200, 10_000)


def wrong(recording: Recording, limit: int = 2_000_000) -> str:
    """Return what is wrong with what came of a seed, or an empty string."""
    if recording.refused:
        return f"the server refused what a client sent: {recording.refused}"
    if recording.stalled:
        return f"it does not come to an end: {recording.stalled}"
    if recording.broken:
        return f"broken promises: {recording.broken}"
    verdict = check_objects(recording.history, recording.models, limit=limit)
    return "" if verdict else str(verdict)


def test_a_seed_is_a_history_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a seed has shown it shows again, threads or not, and whoever asks."""
    seeds = range(12)
    histories = [record(seed) for seed in seeds]
    monkeypatch.setattr("sys.argv", ["another program"])
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    assert histories == [record(seed) for seed in seeds]
    assert record(1).history != record(2).history


@pytest.mark.timeout(7200 if LONG else 300)
def test_clients_keep_their_promises() -> None:
    """Cut off, interrupted, killed, expired and restarted as they are: calls happen once, and losses are told."""
    calls = lives = hits = 0
    for seed in range(SEEDS):
        recording = record(seed)
        problem = wrong(recording)
        assert not problem, f"seed {seed}: {problem}\nto see it again: linearizability.clients.record({seed})"
        calls += len(recording.history)
        hits += recording.hits
        lives += len({operation.subject.partition("@")[2] for operation in recording.history})
    assert calls > 20 * SEEDS
    assert lives > SEEDS
    assert hits > SEEDS


@pytest.mark.parametrize("mutant", CLIENT_MUTANTS, ids=lambda mutant: mutant.title)
def test_a_broken_client_is_found_out(mutant: Mutant) -> None:
    """Each way to be broken shows in one of a few seeds."""
    with mutant.active():
        for seed in range(300):
            try:
                if wrong(record(seed, mutant.kinds), limit=20_000):
                    return
            except Undecided:
                continue  # the next one may be easier
            except Exception:  # noqa: BLE001 - what is broken may fall over, which is not for the checker to find
                continue
    pytest.fail("nobody has noticed")


def test_there_are_broken_clients_enough() -> None:
    """Among them is one for each type that can hold something."""
    assert len(CLIENT_MUTANTS) >= 10
    assert {"queue", "lock", "rlock", "semaphore", "counter"} <= {kind for one in CLIENT_MUTANTS for kind in one.kinds}
    assert all(kind in KINDS for one in CLIENT_MUTANTS for kind in one.kinds)
