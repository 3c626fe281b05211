"""The secret of a log's directory: seals that nobody can make who does not have it.

Sums find what was damaged. They do not find what was changed by somebody who makes new sums, nor files that were
brought from elsewhere. So every head, record and snapshot has a *seal* too, a keyed BLAKE2b of 16 bytes. That of a
record covers the seal of the record before it, a segment begins with that of the record before it, and a snapshot has
that of its last event. So a record says "what comes before me is exactly this".

Who can write the files and cannot read the secret can destroy them, can cut what came after the head that the epoch
file records, as a loss of power could, and can put back all of a directory as it once was. Nobody of these can have an
event served that this directory's servers have not written, nor in another order, nor behind other events. Who can read
the secret is the server's user, and can do anything.

The secret itself is never a key: from it one is derived for each purpose (HKDF, RFC 5869).
"""

from __future__ import annotations

import hmac
from hashlib import blake2b
from typing import Final

SIZE: Final = 16  # bytes of a seal


class Secret:
    """What the files of one directory are sealed with.

    Args:
        secret: The bytes; 32 of them, drawn at random, where it was made here.
    """

    __slots__ = ("_keys",)

    def __init__(self, secret: bytes) -> None:
        extracted = hmac.digest(b"shared-registry log", secret, "sha256")
        # A key that is set up once is copied for each seal, which costs half of setting it up again.
        self._keys = {
            purpose: blake2b(key=hmac.digest(extracted, purpose + b"\x01", "sha256"), digest_size=SIZE)
            for purpose in (b"segment", b"record", b"snapshot")
        }

    def of_segment(self, head: bytes | memoryview) -> bytes:
        """Return the seal of the head of a segment."""
        return self._seal(b"segment", head, b"")

    def of_snapshot(self, head: bytes | memoryview) -> bytes:
        """Return the seal of a snapshot; its head has a hash of the rest."""
        return self._seal(b"snapshot", head, b"")

    def of_record(self, before: bytes, covered: bytes | memoryview, body: bytes | memoryview) -> bytes:
        """Return the seal of a record.

        Args:
            before: The seal of the record before it, empty if there is none.
            covered: Its head, whose length is fixed, as far as its sum covers it.
            body: The rest.
        """
        return self._seal(b"record", before.rjust(SIZE, b"\0") + covered, body)

    def _seal(self, purpose: bytes, first: bytes | memoryview, rest: bytes | memoryview) -> bytes:
        hashed = self._keys[purpose].copy()
        hashed.update(first)
        hashed.update(rest)
        return hashed.digest()
