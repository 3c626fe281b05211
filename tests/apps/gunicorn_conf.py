"""Settings of gunicorn: the application is loaded by the master, before it forks its workers."""

from __future__ import annotations

import os
from typing import Any

bind = f"unix:{os.environ['REGISTRY_HOME']}/http"
preload_app = True
timeout = 60
graceful_timeout = 5
control_socket_disable = True
worker_tmp_dir = os.environ["REGISTRY_HOME"]


def when_ready(server: Any) -> None:
    print("ready", server.pid, flush=True)


if os.environ.get("BEFORE_PATCHING"):

    def post_fork(server: Any, worker: Any) -> None:
        """Use the registry in a worker that gevent has not been let into yet."""
        from shared import loads

        loads.incr()
