"""``registry state verify``, ``dump``, ``backup`` and ``restore``: the log of a server, whether it runs or not.

A server that runs is asked to close its segment. What is in closed files never changes, so that this process reads
them beside the server, which goes on; it has them open, so that the server may remove what it needs no more. The
directory of a server that does not run is taken, so that none begins meanwhile.
"""

from __future__ import annotations

import click

from registry.cli._state._backup import backup
from registry.cli._state._dump import dump
from registry.cli._state._restore import restore
from registry.cli._state._verify import verify

__all__ = ["state"]


@click.group()
def state() -> None:
    """Check, show, back up and restore what survives a server."""


for _command in (verify, dump, backup, restore):
    state.add_command(_command)
