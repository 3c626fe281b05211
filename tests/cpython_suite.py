"""Run the tests that CPython has for its own managers, with `registry.Manager` in the place of the standard one.

    python tests/cpython_suite.py [--standard] [--method fork|spawn|forkserver] [PATTERN]...

They are those of the interpreter that runs this, ``test/_test_multiprocessing.py``: the classes that have a manager for
their types, and ``TestSyncManagerTypes``, which uses each type from a parent and a child. A PATTERN picks some of them,
as ``unittest`` takes patterns. ``--standard`` leaves the standard manager in place. The last line is a row of JSON.

Exit status 0: all passed; 1: some did not; 2: this interpreter has been installed without its tests.
"""

from __future__ import annotations

import argparse
import inspect
import json
import multiprocessing.managers
import sys
import unittest
from typing import Any

try:
    from test import _test_multiprocessing as suite
except ImportError:
    suite = None  # type: ignore[assignment]


def replaced() -> None:
    """Put ours in the place of the standard one, where the tests look."""
    import registry

    multiprocessing.Manager = registry.Manager  # type: ignore[assignment]
    multiprocessing.managers.SyncManager = suite.TestSyncManagerTypes.manager_class = (  # type: ignore[misc]
        registry.manager_class("registry_multiprocessing")
    )


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--standard", action="store_true")
    parser.add_argument("--method", default="fork")
    parser.add_argument("patterns", nargs="*", default=[])
    chosen = parser.parse_args()
    if suite is None:
        print("this interpreter has no package `test`")
        return 2
    if not chosen.standard:
        replaced()
    # Children that are spawned import this file again, and find the classes in it.
    installed(globals(), chosen.method)
    loader = unittest.TestLoader()
    names = [name for name in globals() if name.startswith("WithManager") or name == "TestSyncManagerTypes"]
    if chosen.patterns:
        loader.testNamePatterns = [f"*{pattern}*" for pattern in chosen.patterns]
    # Names, and not this module, since `TestLoader` would take what else is in it.
    module: Any = type(sys)("managers_of_cpython")
    for name in [*names, "setUpModule", "tearDownModule"]:
        setattr(module, name, globals()[name])
    tests = loader.loadTestsFromModule(module)
    loaded = tests.countTestCases()
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    failed = len(result.failures) + len(result.errors)
    counts = {
        "loaded": loaded,  # before the run, which removes what has run
        "run": result.testsRun,
        "skipped": len(result.skipped),
        "failed": failed,
    }
    print(json.dumps(counts))
    return 1 if failed or not result.testsRun else 0


def installed(names: dict[str, Any], method: str) -> None:
    """Make the classes of the tests in a namespace."""
    parameters = inspect.signature(suite.install_tests_in_module_dict).parameters
    wanted = {"only_type": "manager"} if "only_type" in parameters else {}
    suite.install_tests_in_module_dict(names, method, **wanted)
    # Left out by `only_type`, since it makes its manager itself.
    names["TestSyncManagerTypes"] = type(
        "TestSyncManagerTypes", (suite.TestSyncManagerTypes,), {"__module__": __name__}
    )


if __name__ == "__main__":
    sys.exit(main())
elif suite is not None:
    replaced() if "--standard" not in sys.argv else None
    installed(globals(), "spawn")
