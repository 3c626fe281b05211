"""Where servers live: addresses, directories, keys, the lock and the epoch of each.

A name is an address. It stands for one directory, ``~/.local/state/registry/NAME/``, that depends on the
account and the machine alone: neither ``XDG_RUNTIME_DIR`` nor ``TMPDIR`` nor the working directory is looked
at, because cron, a service and a shell see different ones, would start a server each, and both would hold
"the" lock. The directory has

==========  =============================================================================================
``socket``  where the server of a name listens
``key``     the secret that clients show, 32 random bytes
``lock``    held by the one live server; its content tells which (`ServerLock`)
``epoch``   how many servers have lived here (`EpochFile`)
``words``   which file holds the version words of the last server (`registry._words`)
``log``     what the server has to say when nobody watches it
``state``   the directory of the event log
==========  =============================================================================================

The directory is its account's alone (0700). Whatever is found there under another owner, behind a symbolic
link or open to others is refused, naming the cure. A server may let a group to key and socket, see `_groups`.
"""

from __future__ import annotations

from registry._addresses._certificates import TlsFiles, check_file, environment_tls, given_tls, served_tls
from registry._addresses._epoch import EpochFile
from registry._addresses._files import check_socket
from registry._addresses._groups import admit, closed_to, exclude, gid_of, give
from registry._addresses._keys import find_authkey, load_key, read_authkey
from registry._addresses._lock import ServerLock
from registry._addresses._names import DEFAULT, SOCKET_PATH_LIMIT, Address, Place, home, parse

__all__ = [
    "DEFAULT",
    "SOCKET_PATH_LIMIT",
    "Address",
    "EpochFile",
    "Place",
    "ServerLock",
    "TlsFiles",
    "admit",
    "check_file",
    "check_socket",
    "closed_to",
    "environment_tls",
    "exclude",
    "find_authkey",
    "gid_of",
    "give",
    "given_tls",
    "home",
    "load_key",
    "parse",
    "read_authkey",
    "served_tls",
]
