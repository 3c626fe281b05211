"""Run the command line: ``python -m registry`` is ``registry``."""

from __future__ import annotations

from registry.cli import main

if __name__ == "__main__":
    # The name is given, or usage lines would speak of "__main__.py".
    main(prog_name="registry")
