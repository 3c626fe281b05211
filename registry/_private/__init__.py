"""A private server: one that serves a single program and the processes it starts, see `registry.Manager`.

It takes the place of `multiprocessing.managers.Server`, so its clients are stock clients, its objects are plain Python
objects, and what they do may block. It is the server of everybody else up to the handshake: one loop accepts, looks who
a peer is, and watches its process. A connection that has shown the key is then handed to a thread of its own, which
unpickles, calls and pickles, so that nothing of a user's runs on the loop. ::

    loop:    accept -> handshake -> Arrival ---- the process has ended -> Table.end ----+
                                       |                                                |
    thread:                            +-> Serving: request -> Table.call -> answer     +-> owner_ended, wake

*Values* are what they are between processes of one program: pickles. They are opened, since their writers may run code
here; whoever is not of this user is refused. What comes out is a copy.

*References.* `Table` counts who has how many proxies of an object, for each process, and for proxies that are kept
inside of other objects. An object goes with the last of them. What a process had goes with it, however it ends.

*Waits.* A thread that waits for a client ends when nobody waits for its answer any more: at the death of the process,
at the end of the connection, and when the next request comes on it, which tells that the client's thread was
interrupted. `registry.hosting.Visit` is how an object hears of it.
"""

from __future__ import annotations

from registry._private._serving import Door
from registry._private._table import Row, Table

__all__ = ["Door", "Row", "Table"]
