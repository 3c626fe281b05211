"""A plugin of its own, whose values are of a class of its own: what the tests of the kit name by its module."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from registry import ManagerClient, SharedObject, ValueType, hookimpl


@dataclass
class Parcel:
    """What is kept."""

    weight: int


class Depot:
    """Keep parcels by their numbers."""

    def __init__(self) -> None:
        self.parcels: dict[int, Parcel] = {}

    def put(self, number: int, weight: int) -> Parcel:
        self.parcels[number] = Parcel(weight)
        return self.parcels[number]

    def everything(self) -> list[Parcel]:
        return list(self.parcels.values())


DEPOT = SharedObject("depot", Depot, readonly=["everything"])


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share them."""
    return [DEPOT]


@hookimpl
def registry_value_types() -> Iterable[ValueType]:
    """Let parcels cross."""
    return [ValueType(Parcel, "tests.Parcel")]


def put(shared: ManagerClient, number: int, weight: int) -> Parcel:
    """Put a parcel, in a process that has asked nobody yet."""
    parcel: Parcel = shared.depot("north").put(number, weight)
    return parcel
