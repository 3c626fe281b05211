"""What the documentation shows for packages that the product does without: run where they are installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loops import in_loop
from server_processes import end_all
from test_docs import ROOT, blocks, placed
from webs import Web

from registry import ManagerServer, connect
from registry.testing import Server


def written(document: str, directory: Path) -> None:
    """Write the files that a document shows, those for other packages too."""
    for block in blocks((ROOT / "docs" / document).read_text(encoding="utf-8")):
        if block.language in ("python", "py"):
            name = block.lines[0].removeprefix("# ").partition(",")[0]
            (directory / name).write_text(placed([block]), encoding="utf-8")


def is_there(module: str) -> bool:
    """Tell whether a module is installed."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def needs(package: str) -> pytest.MarkDecorator:
    """Skip a test where a package is not installed."""
    return pytest.mark.skipif(not is_there(package), reason=f"{package} is not installed")


# -- FastAPI


@pytest.fixture
def pages(tmp_path: Path, home: Path) -> Iterator[Path]:
    """Write the files of the page about FastAPI, and end the server that they have started."""
    written("fastapi.md", tmp_path)
    yield tmp_path
    end_all(home)


@needs("fastapi")
@in_loop
async def test_plain_routes(home: Path, pages: Path) -> None:
    """They read and write what is shared; one that waits in vain answers by its handler."""
    with Web(home, "asyncio", "api:app", pages) as web:
        assert [await web.get("/hits"), await web.get("/hits")] == [1, 2]
        assert await web.get("/prices/BTC") is None
        assert await web.ask("PUT", "/prices/BTC?usd=97000") == (200, None)
        assert await web.get("/prices/BTC") == {"usd": 97_000}
        with connect("web", start=False) as shared:
            assert shared.lock("refresh").acquire(timeout=0)
            status, body = await web.ask("PUT", "/prices/BTC?usd=1")
        assert status == 503
        assert "lock:refresh" in body["detail"]
        assert await web.get("/prices/BTC") == {"usd": 97_000}
        web.end()


@needs("fastapi")
@pytest.mark.parametrize("app", ["awaiting", "asynchronous"])
@in_loop
async def test_async_routes(home: Path, pages: Path, app: str) -> None:
    """They await what is shared, or give it to a thread."""
    with Web(home, "asyncio", f"{app}:app", pages) as web:
        assert [await web.get("/hits"), await web.get("/hits")] == [1, 2]
        web.end()


@needs("fastapi")
def test_an_application_may_fail_at_its_start(home: Path, pages: Path) -> None:
    """Without a server it ends before it has served anybody; with one it starts."""
    words = [sys.executable, "-m", "uvicorn", "--uds", str(home / "http"), "main:app"]
    done = subprocess.run(words, cwd=pages, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode != 0
    assert "ServerNotFound: no server at web" in done.stderr
    with ManagerServer("web"), Web(home, "asyncio", "main:app", pages) as web:
        web.end()


# -- gunicorn's stash

STASHED = """
import inspect
from gunicorn.dirty import stash

there = {}
for name, verb in {
    "exists": lambda table, key: (table, key) in there,
    "put": lambda table, key, value: there.__setitem__((table, key), value),
    "get": lambda table, key: there[table, key],
}.items():
    inspect.signature(getattr(stash, name)).bind(*inspect.signature(verb).parameters)  # or it is no verb of gunicorn's
    setattr(stash, name, verb)

import stashed

stashed.visit("ann")
stashed.visit("ann")
assert there == {("visits", "ann"): 2}
"""


@pytest.mark.skipif(not is_there("gunicorn.dirty"), reason="gunicorn 25 is not installed")
def test_what_is_moved_from_the_stash_of_gunicorn(tmp_path: Path) -> None:
    """It counts by verbs that gunicorn has; its arbiter is not needed to see what they come to."""
    written("moving.md", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", STASHED], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr


# -- Celery

WORKER = """
import sys
import tasks
from celery.contrib.testing.worker import start_worker
from limits import shared

tasks.app.conf.update(
    broker_url="memory://",
    result_backend="cache+memory://",
    worker_hijack_root_logger=False,
    task_track_started=True,
)
with start_worker(tasks.app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
    assert tasks.report.delay().get(timeout=30) is None
    assert tasks.fetch.delay("example.org", "/").get(timeout=30) is None
    print("done", flush=True)
    sys.stdin.readline()
    late = tasks.report.delay()
    while late.state != "RETRY":
        pass
    print("later", flush=True)
"""


@needs("celery")
def test_tasks_of_celery(tmp_path: Path) -> None:
    """A worker runs them; where another one has the lock, the task comes back later and keeps nobody."""
    written("celery.md", tmp_path)
    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    with Server(str(tmp_path / "limits.py"), "registry_sync", address="celery") as server:
        worker = subprocess.Popen(
            [sys.executable, "worker.py"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert worker.stdout is not None and worker.stdin is not None
            assert worker.stdout.readline() == "done\n"
            with server.connect() as shared:
                assert [row["name"] for row in shared.objects("pace:*")] == ["sites"]
                with shared.lock("nightly"):
                    worker.stdin.write("\n")
                    worker.stdin.flush()
                    assert worker.stdout.readline() == "later\n"
            assert worker.wait(50) == 0
        finally:
            worker.kill()
            worker.communicate()
