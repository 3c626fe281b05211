"""The stock `multiprocessing.managers` protocol."""
from __future__ import annotations
from typing import Any
class StockSessions:
    def __init__(self, server: Any) -> None:
        self.server = server
    def accept(self, peer: Any, pidfd: int | None, domain: str, connection: Any) -> Any:
        connection.end()
        return StockConnection()
class StockConnection:
    def feed(self, data: bytes) -> None: ...
    def lost(self) -> None: ...
