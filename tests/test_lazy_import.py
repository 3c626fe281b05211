"""``import registry`` is free, and a client loads no more than a client needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import registry

# What a client is made of, from the ladder's foot up.
CLIENT_PATH = (
    "registry.errors",
    "registry._leaves",
    "registry.declarations",
    "registry._snapshots",
    "registry._codec",
    "registry._wire",
    "registry.hosting",
    "registry._auth",
    "registry._addresses",
    "registry._peers",
    "registry._shelf",
    "registry._words",
    "registry._transport",
    "registry._line",
    "registry._joining",
    "registry._link",
    "registry._loops",
    "registry._cache",
    "registry._keeper",
    "registry._pending",
    "registry.proxies",
    "registry.client",
)

# What only a server, the command line or a plugin author needs.
NOT_FOR_CLIENTS = (
    "asyncio",
    "click",
    "concurrent.futures",
    "dataclasses",
    "greenlet",
    "importlib.metadata",
    "logging",
    "multiprocessing",
    "pluggy",
    "rich",
    "ssl",
    "uvloop",
)


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has after `code` and had not before."""
    script = (
        "import sys\n"
        # An editable install or a tool may have hooks that import things at start-up.
        "before = set(sys.modules)\n"
        f"{code}\n"
        "print(*sorted(set(sys.modules) - before), sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_of_the_package_loads_no_other_module_of_ours() -> None:
    """``import registry`` loads neither our modules nor anybody's."""
    loaded = loaded_by("import registry")
    assert {name for name in loaded if name.startswith("registry")} == {"registry"}
    assert not loaded & {"attr", "attrs", "msgspec", *NOT_FOR_CLIENTS}


@pytest.mark.parametrize("module", CLIENT_PATH)
def test_the_client_path_is_light(module: str) -> None:
    """No module of the client's path loads what only a server or the command line needs."""
    assert not loaded_by(f"import {module}") & set(NOT_FOR_CLIENTS)


def test_the_client_path_is_what_it_says() -> None:
    """A client loads no module of ours but those of its path."""
    ours = {name for name in loaded_by("import registry.client") if name.startswith("registry")}
    # A package of the path counts as one module.
    assert {".".join(name.split(".")[:2]) for name in ours} <= {"registry", *CLIENT_PATH}


def test_connect_is_as_light_as_the_client() -> None:
    """The first use of `registry.connect` loads only what ``import registry.client`` loads."""
    more = loaded_by("import registry; registry.connect") - loaded_by("import registry.client")
    assert not {name for name in more if name.startswith("registry")}
    assert not more & set(NOT_FOR_CLIENTS)


@pytest.mark.parametrize("name", registry.__all__)
def test_a_public_name_loads_at_its_first_use(name: str) -> None:
    """Every public name can be the first thing that is asked of the package."""
    loaded_by(f"import registry; registry.{name}")


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that the package lacks is refused like any missing attribute."""
    with pytest.raises(AttributeError, match="module 'registry' has no attribute 'conect'"):
        registry.conect


def test_the_version_is_the_distributions() -> None:
    """``registry.__version__`` is the version of the installed distribution."""
    from importlib.metadata import version

    assert registry.__version__ == version("shared-registry")
