"""``registry new-plugin``: a distribution of one's own, which is green at once.

It is made from a plugin that works, ``plugins/_template`` of the sources, which is built, installed and tested as
anybody's; what is written is that, under another name.
"""

from __future__ import annotations

import builtins
import keyword
import re
import typing
from pathlib import Path

import attrs
import click

import registry
from registry.cli import _common

# The names in the template stand for the new ones. Nothing else there has these letters in it.
_PLACEHOLDERS = ("shared-tally", "shared_tally", "Tally", "TALLY", "tally")
# What tests and tools leave behind in the sources.
_LEFT = re.compile(r"^(__pycache__|\..*_cache|.*\.egg-info|build|dist)$")
LONGEST = 32  # letters in a name, so that no line of the template grows past what its formatter allows


@attrs.frozen
class Names:
    """What a plugin and its parts are called.

    Attributes:
        distribution: What is installed: ``shared-cookie-jar``.
        package: What is imported, and the plugin's own name: ``shared_cookie_jar``.
        cls: The class: ``CookieJar``.
        constant: Its declaration: ``COOKIE_JAR``.
        typeid: The attribute of clients: ``cookie_jar``.
    """

    distribution: str
    package: str
    cls: str
    constant: str
    typeid: str

    @classmethod
    def of(cls, name: str) -> Names:
        """Make them of a name, such as ``cookie-jar``.

        Raises:
            ValueError: One of them could not be used; the text tells why.
        """
        typeid = name.replace("-", "_").removeprefix("shared_")
        if not re.fullmatch(r"[a-z]+(_?[a-z0-9]+)*", typeid):
            raise ValueError(f"{name!r} is no name: write lower-case letters, digits and '-', as in cookie-jar")
        if len(typeid) > LONGEST:
            raise ValueError(f"{name!r} has more than {LONGEST} letters: take a shorter name")
        words = typeid.split("_")
        names = cls(
            distribution=f"shared-{'-'.join(words)}",
            package=f"shared_{typeid}",
            cls="".join(word.capitalize() for word in words),
            constant=typeid.upper(),
            typeid=typeid,
        )
        names._check()
        return names

    def _check(self) -> None:
        from registry import _plugins
        from registry.declarations import RESERVED

        taken = "shared-registry" if self.typeid == "registry" else _plugins.load().whence(self.typeid)
        if taken:
            raise ValueError(f"{self.typeid!r} is what {taken} calls something already: take another name")
        if self.cls == self.constant:
            raise ValueError(f"{self.typeid!r} is too short: the class and its declaration would have one name")
        if keyword.iskeyword(self.typeid) or self.typeid in RESERVED:
            raise ValueError(f"{self.typeid!r} is a word that clients or Python have already: take another name")
        if self.cls in typing.__all__ or hasattr(builtins, self.cls) or keyword.iskeyword(self.cls):
            raise ValueError(f"the class would be called {self.cls}, as something of Python's is: take another name")


def template() -> Path:
    """Return where the template is: in the package, or beside it in a checkout."""
    package = Path(registry.__file__).parent
    for place in (package / "_template", package.parent / "plugins" / "_template"):
        if (place / "pyproject.toml").is_file():
            return place
    raise FileNotFoundError(f"the template of plugins is not where it belongs: {package / '_template'}")


def files(names: Names) -> dict[str, str]:
    """Return the files of a new plugin: their contents by their paths."""
    new = (names.distribution, names.package, names.cls, names.constant, names.typeid)
    words = dict(zip(_PLACEHOLDERS, new))
    pattern = re.compile("|".join(_PLACEHOLDERS))

    def renamed(text: str) -> str:
        return pattern.sub(lambda found: words[found[0]], text)

    source = template()
    found = {}
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts
        if path.is_file() and not any(map(_LEFT.match, parts)):
            found[renamed("/".join(parts))] = renamed(path.read_text(encoding="utf-8"))
    return found


@click.command()
@click.argument("name")
@click.option("--into", metavar="DIR", type=click.Path(path_type=Path), help="Where to put its directory. [default: .]")
@_common.json_option
def new_plugin(name: str, into: Path | None, as_json: bool) -> None:
    """Write a plugin of your own: one shared class, tests with two processes, types, CI.

    NAME is what clients will call the type, such as "cookies" or "cookie-jar". The plugin gets a directory of its own,
    which must not be there yet.
    """
    with _common.usage():
        names = Names.of(name)
    directory = (into or Path()) / names.distribution
    written = files(names)
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise _common.Conflict(
            f"{directory} is there already, and nothing was written: remove it, or take another name or --into"
        ) from None
    for path, text in written.items():
        place = directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    if as_json:
        _common.print_json({"directory": str(directory.absolute()), "files": list(written), **attrs.asdict(names)})
        return
    click.echo(f"{directory} shares the class {names.cls}: shared.{names.typeid}(name)")
    click.echo(f'Now: cd {directory} && pip install -e ".[dev]" && pytest')
