"""The stock `multiprocessing.managers` protocol, served to clients that know nothing of us.

A stock client opens a connection, both sides show the key, and then each message (`_framing`) is a pickle.

The first request is ``(None, function, args, kwds)``, and its connection ends with the answer, except after
``accept_connection``: then requests are ``(ident, method, args, kwds)`` until the client closes. An answer
is a pair: ``#RETURN`` and a value, ``#ERROR`` and an exception, ``#TRACEBACK`` and a text. Messages above
`LARGEST` are refused.

*Trust.* A pickle runs code of whoever wrote it. So a request is unpickled only if the kernel says that it
comes from a process of our own user, or if the operator has said that the key is enough. Values are then
encoded as any client's; one that only its writer's class can make is kept as a pickle that this process
never opens again.

*Identity.* A stock client opens and closes connections as it likes: one each for ``create``, ``incref`` and
``decref``, and that of a thread is closed whenever the last proxy that the process knows of dies, also
inside a critical section. ::

    lock = m.lock("login"); lock.acquire()      # on connection 5
    other = m.lock("other"); del other          # connection 5 is closed, and the lock is held
    lock.release()                              # on connection 9

So a connection is neither session nor owner. Where the kernel tells the process, the session is the
process: the end of a connection frees nothing, that of the process everything, at once. An owner is a name
that the client gave in ``accept_connection``, which is the process and the thread, and a number that tells
apart connections of one name that are open at once. Where the kernel cannot tell the process, the session
is (host, name, number), and what it holds is freed `STOCK_GRACE` seconds after its connection has closed,
marked as abandoned.

*Restart.* With a log the sessions are there in the next life of the server: of processes that still live, and for a
while those of names. An owner's number is made of its name, so that a thread has its `rlock` again. Calls that waited
are undone, since their client was told that they have failed. The proxies of objects that a client had made for itself
are not in the log: those objects stay until their maker ends.

*Loss.* A reply counts as received when the next request comes on its connection, or when the connection
ends with nothing unread. A request that comes while the one before it still waits says that the client has
given that one up (its thread was interrupted): it is undone and never answered, so that the client does not
take its reply for that of the next request.
"""

from __future__ import annotations

from registry._framing import LARGEST
from registry._stock._connection import StockConnection
from registry._stock._sessions import STOCK_GRACE, StockSessions

__all__ = ["LARGEST", "STOCK_GRACE", "StockConnection", "StockSessions"]
