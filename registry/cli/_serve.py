"""``registry serve``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli import _common, _settings

if TYPE_CHECKING:
    from logging import Logger

    from registry._addresses import Address
    from registry._plugins import Plugins
    from registry.cli._reload import Reloader
    from registry.server import ManagerServer

IDLE = 3600.0  # seconds without sessions and objects after which a server that was started on demand ends
LOG_BYTES = 1 << 20
LOG_FILES = 3

_TLS = ("cert", "key", "ca")


@click.command()
@click.argument("name", required=False)
@_common.address_alone
@click.option("--plugins", metavar="A,B", help="Serve exactly these plugins.")
@click.option(
    "-p",
    "--plugin",
    "extra",
    metavar="X",
    multiple=True,
    help="Serve this plugin, too: an installed name, a module, or ./file.py. May be given again.",
)
@click.option("--authkey-file", metavar="F", type=click.Path(dir_okay=False), help="Where the key is.")
@click.option(
    "--role",
    "roles",
    metavar="ROLE=F",
    multiple=True,
    help="Let in whoever has the key in this file, as read or write. May be given again.",
)
@click.option(
    "--certificate",
    "certificates",
    metavar="NAME=ROLE",
    multiple=True,
    help="With --tls-ca: what who shows a certificate of this name may, such as CN:dashboard=read. May be given again.",
)
@click.option(
    "--log",
    type=click.Choice(["memory", "process", "disk"]),
    help="Where events are kept; memory keeps none. [default: memory]",
)
@click.option(
    "--state", metavar="DIR", type=click.Path(file_okay=False), help="Where to keep what survives the server."
)
@click.option(
    "--trust",
    type=click.Choice(["uid", "key"]),
    help="Whose pickles are taken: this user's, or any key holder's.",
)
@click.option("--no-md5", is_flag=True, help="Refuse multiprocessing clients of Python 3.11 and older.")
@click.option("--group", metavar="G", help="Let the members of this group connect to the socket, too.")
@click.option("--tls-cert", metavar="F", type=click.Path(dir_okay=False), help="For tls://: the server's certificate.")
@click.option("--tls-key", metavar="F", type=click.Path(dir_okay=False), help="For tls://: its private key.")
@click.option(
    "--tls-ca",
    metavar="F",
    type=click.Path(dir_okay=False),
    help="For tls://: let in only who shows a certificate that this CA has signed.",
)
@click.option("--insecure-network", is_flag=True, help="Listen unencrypted where other hosts can connect.")
@click.option("--lease", metavar="S", type=float, help="Seconds a silent session is believed. [default: 30]")
@click.option(
    "--limit",
    "limits",
    metavar="NAME=VALUE",
    multiple=True,
    help="What clients may take, such as stored=512M. May be given again.",
)
@click.option("--reload", is_flag=True, help="Begin anew with the new code when the files of the plugins change.")
@click.option("--strict", is_flag=True, help="Fail if a plugin is off or broken.")
@click.option(
    "--config",
    metavar="F",
    type=click.Path(exists=True, dir_okay=False),
    help="Read options from a TOML file.",
)
@_common.json_option
@click.option("--on-demand", is_flag=True, hidden=True)
@click.option("--ready-fd", type=int, hidden=True)
@click.option("--idle-exit", type=float, hidden=True)
def serve(
    name: str | None,
    address: str | None,
    on_demand: bool,
    ready_fd: int | None,
    idle_exit: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run a server in the foreground, until SIGINT or SIGTERM.

    NAME is a name of your own, such as "scrapers"; -a takes a URL, too. Options can also stand in the
    file that --config names, or else in registry.toml in the name's directory.
    """
    from registry import _starter

    report = _starter.Report(ready_fd)
    if on_demand:
        _starter.detach()
        idle_exit = IDLE if idle_exit is None else idle_exit
    try:
        _serve(name, address, options, report, as_json, on_demand, idle_exit or 0.0)
    except BaseException as error:
        report.failed(_common.text_of(error), busy=_common.is_taken(error))
        raise


def _serve(
    name: str | None,
    address: str | None,
    options: dict[str, Any],
    report: Any,
    as_json: bool,
    on_demand: bool,
    idle: float,
) -> None:
    from registry import _addresses, _starter
    from registry.cli._supervisor import Supervisor

    supervisor = Supervisor()
    if name is not None and address is not None:
        raise click.UsageError("give NAME or --address, not both")
    asked, settings = _configured(address if name is None else name, options)
    place = None
    with _common.usage():
        where = _addresses.parse(asked)
        if where.kind != "memory":
            place = _addresses.Place(where)
        if options["reload"] and where.port == 0:
            raise ValueError("--reload needs a port that stays the same, not 0")
    if on_demand and place is not None:
        place.ensure()
    log = _start_logging(str(place.log) if on_demand and place is not None else None)
    plugins = _load(settings, on_demand, log)
    server = _make(where, plugins, settings)
    server.idle_limit = idle or None
    server.notes = {
        "options": [*_command_line(settings), "--idle-exit", repr(idle)],
        "python": sys.executable,
        "path": _starter.search_path(whole=True),
        "revived": on_demand and settings["log"] != "memory",
        "unit": _starter.unit() if on_demand else "",
        "keeper": supervisor.command() if not on_demand else "",
    }
    reloader = _reloader(server, settings, log) if options["reload"] else None

    def ready() -> None:
        if server.gid is not None and place is not None:
            own = settings["authkey-file"] or str(place.key)
            for key in settings["roles"].values() or [own]:
                _tell_members(log, settings["group"], server.gid, server.url, key)
        if as_json:
            _common.print_json({"name": where.name, "address": server.url, "pid": os.getpid()})
        report.ready()
        supervisor.ready(f"serving {server.url} with {len(plugins.declarations)} types")
        if reloader is not None:
            reloader.begin()

    def stopping() -> None:
        if reloader is not None and reloader.is_due:
            supervisor.reloading()
        else:
            supervisor.stopping()

    server.on_ready = ready
    server.on_stopping = stopping
    if server.notes["unit"]:
        log.warning("this server was started inside %s, and ends with it", server.notes["unit"])
    server.run()
    if reloader is not None:
        from registry.cli import _reload

        reloader.end()
        if reloader.is_due:
            _reload.take_over()


def _load(settings: dict[str, Any], on_demand: bool, log: Logger) -> Plugins:
    """Load what is to be served, and tell what is wrong with the rest."""
    from registry import _plugins

    only, extra = settings["plugins"], settings["plugin"]
    if (only or extra) and not on_demand:
        # The command is the same by all its names, and only `python -m` looks here by itself. Last, so that
        # nothing here hides what is installed.
        sys.path.append(os.getcwd())
    plugins = _plugins.load(only, extra, settings["strict"]).required()
    for plugin in plugins.problems:
        log.warning("plugin %s is %s: %s", plugin.name, plugin.status, plugin.reason)
    return plugins


def _make(where: Address, plugins: Plugins, settings: dict[str, Any]) -> ManagerServer:
    """Return a server with the options."""
    from registry import _addresses
    from registry.server import ManagerServer

    authkey = _addresses.read_authkey(settings["authkey-file"]) if settings["authkey-file"] else None
    with _common.usage():
        roles = {
            role: _addresses.read_authkey(file, f"the key file of the role {role!r}")
            for role, file in settings["roles"].items()
        }
        server = ManagerServer(
            where.label,
            authkey,
            plugins=plugins,
            log=settings["log"],
            state=settings["state"],
            roles=roles,
            trust=settings["trust"],
            no_md5=settings["no-md5"],
            lease=settings["lease"],
            insecure_network=settings["insecure-network"],
            certificates=settings["certificates"],
            tls={name: settings[f"tls-{name}"] for name in _TLS if settings[f"tls-{name}"]} or None,
            limits=settings["limits"],
        )
        if settings["group"] is not None:
            server.gid = _gid(settings["group"], where, settings["authkey-file"] or next(iter(roles), None))
    return server


def _reloader(server: ManagerServer, settings: dict[str, Any], log: Logger) -> Reloader:
    """Return what begins the server anew when its plugins change."""
    from registry.cli._reload import Reloader

    if settings["log"] == "memory":
        log.warning("what is shared is gone after each reload; --log process keeps it")
    return Reloader(server.plugins, _plugin_options(settings), lambda: server.stop(0.0))


def _gid(group: str, where: Address, key: str | None) -> int:
    """Return the number of the group whose members may connect.

    Raises:
        ValueError: There is no such group, or nothing that its members could be let to.
    """
    from registry import _addresses

    if where.path is None:
        raise ValueError(f"--group is for the socket of a name or of unix:///path; {where} lets in whoever has the key")
    if where.name is None and key is None:
        raise ValueError(
            "the members of --group need a key: name a file that they can read, with --authkey-file or --role"
        )
    return _addresses.gid_of(group)


def _tell_members(log: Logger, group: str, gid: int, url: str, key: str) -> None:
    """Say how the members of a group connect, and what would keep them from it."""
    from registry._addresses import closed_to

    log.info("members of the group %s connect with REGISTRY_ADDRESS=%s REGISTRY_AUTHKEY_FILE=%s", group, url, key)
    for path in (url.removeprefix("unix://"), key):
        closed = closed_to(path, gid)
        if closed:
            log.warning("members of the group %s cannot get to %s: %s is closed to them", group, path, closed)
    found = os.stat(key)
    if found.st_gid != gid or not found.st_mode & 0o040:
        log.warning("members of the group %s cannot read the key: chgrp %s %s; chmod 640 %s", group, group, key, key)


def _configured(where: str | None, options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return the address and the options, after the configuration file and the defaults have filled them."""
    from registry import _addresses

    file = options["config"]
    settings: dict[str, Any] = _settings.read(Path(file).absolute()) if file else {}
    where = where or settings.get("address")
    if not file:
        with _common.usage():
            address = _addresses.parse(where)
            path = None if address.name is None else _addresses.Place(address).directory / "registry.toml"
        if path is not None and path.is_file():
            settings = _settings.read(path)
            if "address" in settings:
                raise click.UsageError(f"{path} is that of {address.name!r}: address belongs into a file for --config")
    given: dict[str, Any] = {
        "plugins": _common.listed(options["plugins"]) if options["plugins"] is not None else None,
        "plugin": list(options["extra"]) or None,
        "authkey-file": options["authkey_file"] and os.path.abspath(options["authkey_file"]),
        "log": options["log"],
        "state": options["state"] and os.path.abspath(options["state"]),
        "roles": _roles(options["roles"]),
        "certificates": _names(options["certificates"]),
        "trust": options["trust"],
        "no-md5": options["no_md5"] or None,
        "group": options["group"],
        **{f"tls-{name}": options[f"tls_{name}"] and os.path.abspath(options[f"tls_{name}"]) for name in _TLS},
        "insecure-network": options["insecure_network"] or None,
        "lease": options["lease"],
        "strict": options["strict"] or None,
    }
    defaults: dict[str, Any] = {
        "plugins": None,
        "plugin": [],
        "authkey-file": os.path.abspath(os.environ["REGISTRY_AUTHKEY_FILE"])
        if os.environ.get("REGISTRY_AUTHKEY_FILE")
        else None,
        "log": "memory",
        "state": None,
        "roles": {},
        "certificates": {},
        "trust": "uid",
        "no-md5": False,
        "group": None,
        **{f"tls-{name}": None for name in _TLS},
        "insecure-network": False,
        "lease": 30.0,
        "limits": {},
        "strict": False,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    limits = {**settings.get("limits", {}), **_limits(options["limits"])}
    return where, {**defaults, **settings, **chosen, "limits": limits}


def _limits(words: Sequence[str]) -> dict[str, Any]:
    """Return the limits of the command line, by name."""
    from registry._limits import Limits

    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise click.UsageError(f"--limit takes NAME=VALUE, such as stored=512M, not {word!r}")
        with _common.usage():
            found[name] = Limits.read(name, value)
    return found


def _roles(words: Sequence[str]) -> dict[str, str] | None:
    """Return the key files that are given on the command line by the roles that they give, None without any."""
    found: dict[str, str] = {}
    for word in words:
        role, equals, file = word.partition("=")
        if not (role and equals and file):
            raise click.UsageError(f"--role takes ROLE=FILE, such as read=read.key, not {word!r}")
        if role in found:
            raise click.UsageError(f"--role gives the role {role!r} two key files, and it has one key")
        found[role] = os.path.abspath(file)
    return found or None


def _names(words: Sequence[str]) -> dict[str, str] | None:
    """Return the roles that are given on the command line by the names in certificates, None without any."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, role = word.rpartition("=")  # an address in a certificate may have one, too
        if not (name and equals and role):
            raise click.UsageError(f"--certificate takes NAME=ROLE, such as CN:dashboard=read, not {word!r}")
        found[name] = role
    return found or None


def _command_line(settings: dict[str, Any]) -> list[str]:
    """Return the options that start such a server again, from whatever directory."""
    line = _plugin_options(settings)
    for name in ("authkey-file", "log", "state", "trust", "group", "tls-cert", "tls-key", "tls-ca", "lease"):
        if settings[name] is not None:
            line.append(f"--{name}={settings[name]}")
    line += [f"--role={role}={file}" for role, file in settings["roles"].items()]
    line += [f"--certificate={name}={role}" for name, role in settings["certificates"].items()]
    line += [f"--limit={name}={value}" for name, value in settings["limits"].items()]
    return line + [f"--{name}" for name in ("no-md5", "insecure-network", "strict") if settings[name]]


def _plugin_options(settings: dict[str, Any]) -> list[str]:
    """Return the options that load the same plugins, from whatever directory."""
    from registry import _plugins

    def words(items: Sequence[str]) -> list[str]:
        return [str(_plugins._absolute(item)) for item in items]

    line: list[str] = []
    if settings["plugins"] is not None:
        line.append(f"--plugins={','.join(words(settings['plugins']))}")
    for word in words(settings["plugin"]):
        line += ["-p", word]
    return line


def _start_logging(path: str | None) -> Logger:
    """Log to the standard error, or into a file that is kept small."""
    import logging
    import logging.handlers

    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler()
    else:
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"
        )
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    return logging.getLogger("registry")
