"""Every error and warning of the package.

::

    RegistryError
    ├── DeclarationError(ValueError)   NotDurable(TypeError)   PluginError(ImportError)
    ├── ServerNotFound, StateLost, OutcomeUnknown, Closed, VersionMismatch (ConnectionError)
    ├── AccessDenied(PermissionError)
    ├── CallTimeout(TimeoutError)
    ├── Deadlock, BlockingInLoop, CodeChanged, NotOwner, LockLost, EditConflict (RuntimeError)
    ├── UnknownType(AttributeError)   NoSuchObject(LookupError)   DefinitionConflict(ValueError)
    ├── NotShareable, SnapshotError (TypeError)
    └── RemoteError
    UserWarning
    └── StaleServer, LostUpdateWarning

An error keeps its data as its positional arguments, so that pickle and the wire rebuild it as
``type(error)(*error.args)``; the same data are attributes, and the text is made by ``__str__``. Objects are
written ``typeid:name``.

The side that finds an error often does not know how the caller names the server. Where a class has a
``server`` it is the last argument and may be left empty; the client fills it with
`RegistryError.located`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "AccessDenied",
    "BlockingInLoop",
    "CallTimeout",
    "Closed",
    "CodeChanged",
    "Deadlock",
    "DeclarationError",
    "DefinitionConflict",
    "EditConflict",
    "LockLost",
    "LostUpdateWarning",
    "NoSuchObject",
    "NotDurable",
    "NotOwner",
    "NotShareable",
    "OutcomeUnknown",
    "PluginError",
    "RegistryError",
    "RemoteError",
    "ServerNotFound",
    "SnapshotError",
    "StaleServer",
    "StateLost",
    "UnknownType",
    "VersionMismatch",
]


class RegistryError(Exception):
    """The base of all errors of this package."""

    def __init__(self, *args: object) -> None:
        # Not super().__init__: with two or more arguments OSError would read an errno and a file name into
        # them and drop some, and ImportError would keep a message of its own.
        Exception.__init__(self, *args)

    def located(self, server: str) -> Self:
        """Return this error with its server named.

        Args:
            server: how the caller knows the server, such as ``'default' (pid 812, since 10:03)``.

        Returns:
            A copy with the server filled in and the same traceback, cause and notes; the error itself where
            it has no ``server`` or already names one.
        """
        if getattr(self, "server", None) != "":
            return self
        copy = type(self)(*self.args[:-1], server)
        copy.__traceback__ = self.__traceback__
        copy.__cause__ = self.__cause__
        copy.__context__ = self.__context__
        copy.__suppress_context__ = self.__suppress_context__
        notes = getattr(self, "__notes__", None)
        if notes:
            copy.__dict__["__notes__"] = list(notes)
        return copy


def _on(server: str) -> str:
    return f" on server {server}" if server else ""


def _shown(value: object) -> str:
    return value if type(value) is str else repr(value)


def _clock(since: float) -> str:
    import datetime  # an error's text is rare, and the client path stays light

    try:
        return datetime.datetime.fromtimestamp(since).isoformat(" ", "seconds")
    except (TypeError, ValueError, OverflowError, OSError):  # the number may come from a peer
        return f"second {since}"


# Declaring


class DeclarationError(RegistryError, ValueError):
    """Raised when a `SharedObject` record breaks a rule.

    Attributes:
        field: the field of the record, or ``typeid.field`` where the typeid is known.
        rule: what the field must be.
        value: what was given.
    """

    def __init__(self, field: str, rule: str, value: object) -> None:
        super().__init__(field, rule, value)
        self.field = field
        self.rule = rule
        self.value = value

    def __str__(self) -> str:
        return f"{self.field} {self.rule}, not {self.value!r} of type {type(self.value).__name__}"


class NotDurable(RegistryError, TypeError):
    """Raised when the state of an inline class cannot be captured.

    Attributes:
        class_name: the qualified name of the class.
        reason: what stands in the way, and where.
    """

    def __init__(self, class_name: str, reason: str) -> None:
        super().__init__(class_name, reason)
        self.class_name = class_name
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.class_name} cannot be kept by a server: {self.reason}. Keep plain values in its attributes, "
            f"give it state() and load(), or declare it with threaded=True"
        )


class PluginError(RegistryError, ImportError):
    """Raised when a plugin that was asked for cannot be used.

    Attributes:
        plugin: its name as it was given.
        reason: what went wrong, and the cure.
    """

    def __init__(self, plugin: str, reason: str) -> None:
        super().__init__(plugin, reason)
        self.plugin = plugin
        self.reason = reason

    def __str__(self) -> str:
        return f"plugin {self.plugin!r}: {self.reason}"


# Reaching a server


class ServerNotFound(RegistryError, ConnectionError):
    """Raised when no server answers at an address.

    Attributes:
        address: the address as a name or URL.
        reason: what was tried, and the cure.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"no server at {self.address}: {self.reason}"


class StateLost(RegistryError, ConnectionError):
    """Raised once when the server's life that held this session's changes is gone.

    Attributes:
        reason: what happened to it.
        server: the server, as the client knows it.
    """

    def __init__(self, reason: str, server: str = "") -> None:
        super().__init__(reason, server)
        self.reason = reason
        self.server = server

    def __str__(self) -> str:
        return (
            f"what this process had changed{_on(self.server)} is lost: {self.reason}. This is said once; "
            f"the next call goes on with the state that is there now"
        )


class OutcomeUnknown(RegistryError, ConnectionError):
    """Raised when a change was sent and nobody can say whether it was made.

    Attributes:
        call: the call, as ``typeid:name.method``.
        reason: why it cannot be known.
        server: the server, as the client knows it.
    """

    def __init__(self, call: str, reason: str, server: str = "") -> None:
        super().__init__(call, reason, server)
        self.call = call
        self.reason = reason
        self.server = server

    def __str__(self) -> str:
        return (
            f"{self.call}{_on(self.server)} may or may not have taken effect: {self.reason}. "
            f"Read the object before you call again"
        )


class Closed(RegistryError, ConnectionError):
    """Raised when something is used after it was closed.

    Attributes:
        what: the thing that is closed.
        cure: what to do instead.
    """

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what, cure)
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.what} is closed: {self.cure}"


class VersionMismatch(RegistryError, ConnectionError):
    """Raised when client and server do not speak one version of the protocol.

    Attributes:
        ours: this side's version.
        theirs: the other side's.
        server: the server, as the client knows it.
    """

    def __init__(self, ours: str, theirs: str, server: str = "") -> None:
        super().__init__(ours, theirs, server)
        self.ours = ours
        self.theirs = theirs
        self.server = server

    def __str__(self) -> str:
        return (
            f"this process speaks version {self.ours} and the other side{_on(self.server)} version "
            f'{self.theirs}: install one version of shared-registry on both and "registry restart"'
        )


class AccessDenied(RegistryError, PermissionError):
    """Raised when a peer may not do what it asked for, or a file of ours is open to others.

    Attributes:
        reason: what was refused, and the cure.
        server: the server, as the client knows it.
    """

    def __init__(self, reason: str, server: str = "") -> None:
        super().__init__(reason, server)
        self.reason = reason
        self.server = server

    def __str__(self) -> str:
        return f"access denied{_on(self.server)}: {self.reason}"


# Calling


class CallTimeout(RegistryError, TimeoutError):
    """Raised when a call was not answered in time; it is settled then and had no effect.

    Attributes:
        call: the call, as ``typeid:name.method``.
        seconds: how long it was given; None where that is not known any more.
        detail: what it waited for, such as the holder of a lock.
        server: the server, as the client knows it.
    """

    def __init__(self, call: str, seconds: float | None, detail: str = "", server: str = "") -> None:
        super().__init__(call, seconds, detail, server)
        self.call = call
        self.seconds = seconds
        self.detail = detail
        self.server = server

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        within = "in time" if self.seconds is None else f"within {self.seconds} seconds"
        return (
            f"{self.call}{_on(self.server)} was not done {within}{detail}. "
            f"It had no effect; try again or give it a longer timeout"
        )


class Deadlock(RegistryError, RuntimeError):
    """Raised when a wait could never end.

    Attributes:
        text: who waits for whom, and the cure.
        participants: a row for each wait, beginning with the call that was refused: who waits, for which object,
            and a tuple of those who would have to go on first. Empty where the object itself found it.
        server: the server, as the client knows it.
    """

    def __init__(
        self, text: str, participants: tuple[tuple[str, str, tuple[str, ...]], ...] = (), server: str = ""
    ) -> None:
        super().__init__(text, participants, server)
        self.text = text
        self.participants = participants
        self.server = server

    def __str__(self) -> str:
        return f"deadlock{_on(self.server)}: {self.text}"


class BlockingInLoop(RegistryError, RuntimeError):
    """Raised when a waiting verb of the synchronous client is called under a running event loop.

    Attributes:
        call: the call, as ``typeid:name.method``.
    """

    def __init__(self, call: str) -> None:
        super().__init__(call)
        self.call = call

    def __str__(self) -> str:
        return (
            f"{self.call} would stop the event loop that runs in this thread: await it with registry.aio, "
            f"or call it in a thread with asyncio.to_thread()"
        )


class CodeChanged(RegistryError, RuntimeError):
    """Raised when a log was written by other code than what would replay it.

    Attributes:
        text: what differs, and the cure.
        server: the server, as the client knows it.
    """

    def __init__(self, text: str, server: str = "") -> None:
        super().__init__(text, server)
        self.text = text
        self.server = server

    def __str__(self) -> str:
        return f"the code has changed{_on(self.server)}: {self.text}"


class NotOwner(RegistryError, RuntimeError):
    """Raised when something is released by someone who does not hold it.

    Attributes:
        object: the object, as ``typeid:name``.
        holder: who holds it; empty if nobody does.
        server: the server, as the client knows it.
    """

    def __init__(self, object: str, holder: str, server: str = "") -> None:
        super().__init__(object, holder, server)
        self.object = object
        self.holder = holder
        self.server = server

    def __str__(self) -> str:
        holder = f"{self.holder} holds it" if self.holder else "nobody holds it"
        return (
            f"{self.object}{_on(self.server)} is not held by this caller: {holder}. "
            f'Release it where it was acquired, best by "with"'
        )


class LockLost(RegistryError, RuntimeError):
    """Raised when a grant that was held has been taken away.

    Attributes:
        object: the object, as ``typeid:name``.
        reason: how it was lost.
        server: the server, as the client knows it.
    """

    def __init__(self, object: str, reason: str, server: str = "") -> None:
        super().__init__(object, reason, server)
        self.object = object
        self.reason = reason
        self.server = server

    def __str__(self) -> str:
        return (
            f"{self.object}{_on(self.server)} is no longer held here: {self.reason}. Another may hold it by "
            f"now: leave the block, acquire it again and check what you were changing"
        )


class EditConflict(RegistryError, RuntimeError):
    """Raised at the end of an ``edit`` whose key was written or deleted meanwhile; nothing was changed.

    Attributes:
        object: the object, as ``typeid:name``.
        key: the key, as text.
        server: the server, as the client knows it.
    """

    def __init__(self, object: str, key: str, server: str = "") -> None:
        super().__init__(object, key, server)
        self.object = object
        self.key = key
        self.server = server

    def __str__(self) -> str:
        return (
            f"{self.object}[{self.key}]{_on(self.server)} was written by someone else during this edit, "
            f"which changed nothing: edit it again, and let every writer of this key use edit()"
        )


# Naming


class UnknownType(RegistryError, AttributeError):
    """Raised when a server has no shared type of that name.

    Attributes:
        typeid: the name asked for.
        hint: the cure, where more is known than the usual one.
        server: the server, as the client knows it.
    """

    def __init__(self, typeid: str, hint: str = "", server: str = "") -> None:
        super().__init__(typeid, hint, server)
        self.typeid = typeid
        self.hint = hint
        self.server = server

    def __str__(self) -> str:
        hint = self.hint or 'Install the plugin that declares it there and "registry restart"'
        return f"no shared type {self.typeid!r}{_on(self.server)}. {hint}"


class NoSuchObject(RegistryError, LookupError):
    """Raised when an object is not there: deleted, never made, or not to be made by this caller.

    Attributes:
        object: the object, as ``typeid:name``.
        reason: why it is not there, and the cure.
        server: the server, as the client knows it.
    """

    def __init__(self, object: str, reason: str, server: str = "") -> None:
        super().__init__(object, reason, server)
        self.object = object
        self.reason = reason
        self.server = server

    def __str__(self) -> str:
        return f"no object {self.object}{_on(self.server)}: {self.reason}"


class DefinitionConflict(RegistryError, ValueError):
    """Raised when an object exists and was made with other arguments.

    Attributes:
        object: the object, as ``typeid:name``.
        stored: the arguments it was made with; text is shown as it is.
        given: the arguments of this call.
        maker: who made it.
        since: when it was made, in seconds of the wall clock.
        server: the server, as the client knows it.
    """

    def __init__(self, object: str, stored: object, given: object, maker: str, since: float, server: str = "") -> None:
        super().__init__(object, stored, given, maker, since, server)
        self.object = object
        self.stored = stored
        self.given = given
        self.maker = maker
        self.since = since
        self.server = server

    def __str__(self) -> str:
        return (
            f"{self.object}{_on(self.server)} was made with {_shown(self.stored)} by {self.maker} "
            f"at {_clock(self.since)}, this call gives {_shown(self.given)}. Pass no arguments to use it as "
            f"it is, take another name, or delete() it first"
        )


# Values


class NotShareable(RegistryError, TypeError):
    """Raised when a value cannot leave its process.

    Attributes:
        what: the value's place and class.
        reason: why it cannot cross, and the cure.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what} cannot be shared: {self.reason}"


class SnapshotError(RegistryError, TypeError):
    """Raised when a copy that was read is changed, which would change nothing that is shared.

    Attributes:
        text: what it is a copy of, and how to change the shared one.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


class RemoteError(RegistryError):
    """Raised when a shared object raised something that cannot cross as itself.

    Attributes:
        call: the call, as ``typeid:name.method``; empty until the client fills it.
        type_name: the qualified name of the class that was raised.
        message: its text.
        traceback: the remote traceback as text; empty for those who may not see it.
        server: the server, as the client knows it.
    """

    def __init__(self, call: str, type_name: str, message: str, traceback: str = "", server: str = "") -> None:
        super().__init__(call, type_name, message, traceback, server)
        self.call = call
        self.type_name = type_name
        self.message = message
        self.traceback = traceback
        self.server = server

    def __str__(self) -> str:
        message = f": {self.message}" if self.message else ""
        return f"{self.call or 'a shared object'}{_on(self.server)} raised {self.type_name}{message}"


# Warnings


class StaleServer(UserWarning):
    """Issued once when a server runs other code than what is installed now."""


class LostUpdateWarning(UserWarning):
    """Issued in development mode when a write replaces a newer value than the one that its thread has read last.

    Development mode is ``python -X dev``, or ``REGISTRY_DEBUG=1``.
    """
