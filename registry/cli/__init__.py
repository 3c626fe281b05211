"""The command line: ``registry``, ``shared-registry`` and ``python -m registry`` are one.

Each group of commands is a module, loaded when one of its commands runs or all are listed; what they work
with is loaded later still, by the functions that need it, so that ``registry --help`` is quick.

Exit codes: 0 done, 1 failed, 2 used wrongly, 3 no server, 4 denied, 5 conflict. People get one line that says
what is wrong; with ``REGISTRY_DEBUG=1`` there is a traceback, too.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from registry import __version__
from registry.cli import _common

__all__ = ["main", "run"]

_COMMANDS = {
    "serve": "_serve",
    "status": "_control",
    "stop": "_control",
    "restart": "_control",
    "objects": "_objects",
    "call": "_objects",
    "delete": "_objects",
    "locks": "_locks",
    "release": "_locks",
    "doctor": "_doctor",
    "plugins": "_plugins",
    "new-plugin": "_new_plugin",
    "state": "_state",
    "demo": "_demo",
}


class _Commands(click.Group):
    """The commands, each loaded at its first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [
            name for name, module in _COMMANDS.items() if importlib.util.find_spec(f"{__name__}.{module}") is not None
        ]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__name__}.{_COMMANDS[cmd_name]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        return command if isinstance(command, click.Command) else None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def _registry() -> None:
    """Share live objects between the Python processes of this machine and of others."""


def main(arguments: Sequence[str] | None = None, prog_name: str | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: The words behind the command's name; None takes this process's.
        prog_name: The command's name; None takes it from this process.
    """
    sys.exit(run(arguments, prog_name))


def run(arguments: Sequence[str] | None = None, prog_name: str | None = None) -> int:
    """Run the command line and return the exit code; takes what `main` takes."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        _common.show_warnings_to_people()
        try:
            code = _registry.main(words or ["--help"], prog_name, standalone_mode=False)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read our output has seen enough; Python must not complain about it at its end either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:  # noqa: BLE001 - the end of the line: people get a text, not a traceback
            if os.environ.get("REGISTRY_DEBUG"):
                import traceback

                traceback.print_exc()
            _common.say(_common.text_of(error))
            return _common.exit_code(error)
    return code if isinstance(code, int) else 0
