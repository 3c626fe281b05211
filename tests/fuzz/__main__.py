"""Fuzz: ``python -m fuzz [NAME]... [--seconds N] [--seed N] [--keep]``, in ``tests/``, with atheris installed.

Each target begins with its corpus: inputs that between them reach all of the code that was ever reached, a line of
base64 each. With ``--keep`` those that reach more are added to it. An input that shows a fault is printed, as base64,
and the status is 1; one that takes longer than `fuzzer.SLOW` is a fault, too.
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.targets import TARGETS

HERE = Path(__file__).parent
LONGEST = 2048


def corpus(name: str) -> list[bytes]:
    """Return the inputs that are kept for a target."""
    return [base64.b64decode(line) for line in _file(name).read_text("ascii").split()]


def _file(name: str) -> Path:
    return HERE / "corpus" / f"{name}.txt"


def fuzz(name: str, seconds: int, keep: bool = False, seed: int = 0) -> bool:
    """Fuzz a target for a while; tell whether nothing was found."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found")
        found.mkdir()
        for number, data in enumerate(corpus(name)):
            (found / str(number)).write_bytes(data)
        print(f"{name}: {seconds} s, from {len(list(found.iterdir()))} inputs", flush=True)
        command = [sys.executable, "-m", "fuzz.fuzzer", name, str(found), f"-max_total_time={seconds}"]
        options = [f"-seed={seed}", f"-max_len={LONGEST}", f"-artifact_prefix={folder}/fault-", "-print_final_stats=1"]
        if subprocess.run([*command, *options], cwd=HERE.parent).returncode:
            for fault in Path(folder).glob("fault-*"):
                print(f"{name}: a fault by {base64.b64encode(fault.read_bytes()).decode()}", flush=True)
            return False
        if keep:
            lines = {base64.b64encode(each.read_bytes()).decode() for each in found.iterdir()} - {""}
            _file(name).write_text("\n".join(sorted(lines, key=_order)) + "\n", "ascii")
        return True


def _order(line: str) -> tuple[int, str]:
    return len(line), line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TARGETS)}; all without")
    parser.add_argument("--seconds", type=int, default=60, help="for each (60)")
    parser.add_argument("--seed", type=int, default=0, help="of what is tried, to try it again; 0 draws one (0)")
    parser.add_argument("--keep", action="store_true", help="add what reaches more code to the corpus")
    options = parser.parse_args()
    clean = [fuzz(name, options.seconds, options.keep, options.seed) for name in options.names or TARGETS]
    sys.exit(not all(clean))


if __name__ == "__main__":
    main()
