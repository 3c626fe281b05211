"""The process that folds closed segments into a snapshot, see `_folding`: ``python -m registry._log._folder``.

It is told what to do on its standard input by the server that has started it, and answers with one JSON object.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time

from registry import _image, _plugins
from registry._log import _format, _recovery
from registry._log._code import changes, code
from registry._log._files import Directory
from registry._log._format import Picture
from registry.errors import RegistryError


def fold(path: str, spec: tuple[object, object], upto: int, expected: dict[str, str], life: int) -> dict[str, object]:
    """Write the snapshot of event `upto` for the life that asks for it, and return what is to be answered."""
    plugins = _plugins.load(*spec)  # type: ignore[arg-type]
    differs = changes(expected, code(plugins))
    if differs:
        return {"error": f"the code has changed since the server was started: {differs}"}
    directory = Directory(path, life)
    found = _recovery.recover(directory, plugins.declarations, expected, upto=upto)
    if found.diverged:
        return {"diverged": str(found.diverged[0])}
    picture = Picture(
        format=_format.FORMAT,
        index=found.index,
        chain=found.chain,
        code=expected,
        life=b"",
        epoch=found.engine.epoch,
        made=time.time(),
        seal=found.seal,
        origin=found.origin,
        others=found.others,
    )
    image = _image.capture(found.engine)
    directory.put(directory.snapshot(found.index), _format.pack_snapshot(picture, image, directory.own_secret()))
    return {"index": found.index, "chain": found.chain}


def main() -> None:
    """Do what the standard input says."""
    if hasattr(os, "nice"):
        os.nice(10)  # the server goes first
    task = pickle.load(sys.stdin.buffer)
    try:
        answer = fold(*task)
    except (RegistryError, OSError) as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
    os._exit(0)  # millions of objects are not taken apart one by one


if __name__ == "__main__":
    main()
