"""Finding and loading plugins: where each is from, and what happens to the others when one fails."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

import registry
from registry import _plugins
from registry._plugins import Plugin, Plugins, load, whence
from registry.declarations import SharedObject
from registry.errors import PluginError
from registry.hookspecs import hookimpl

Install = Callable[..., Path]


def source(*typeids: str, factory: str = "dict") -> str:
    """Return the code of a plugin that declares these typeids."""
    records = ", ".join(f"SharedObject({typeid!r}, {factory})" for typeid in typeids)
    return (
        "from registry import SharedObject, hookimpl\n"
        "class Jar:\n"
        "    def get(self): ...\n"
        "@hookimpl\n"
        "def registry_shared_objects():\n"
        f"    return [{records}]\n"
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give an empty directory that modules are imported from, and that alone has distributions."""
    path = tmp_path / "site"
    path.mkdir()
    distributions = metadata.distributions
    monkeypatch.setattr(_plugins.metadata, "distributions", lambda: distributions(path=[str(path)]))
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def install(site: Path) -> Install:
    """Give a function that installs a distribution of one module."""

    def install(name: str, code: str, *, version: str = "1.0", points: str | None = None) -> Path:
        module = name.replace("-", "_")
        path = site / f"{module}.py"
        path.write_text(code)
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        points = f"[shared_registry]\n{module} = {module}\n" if points is None else points
        (info / "entry_points.txt").write_text(points)
        return path

    return install


def statuses(plugins: Plugins) -> dict[str, str]:
    """Return what became of each plugin."""
    return {plugin.name: plugin.status for plugin in plugins.plugins}


class Cookies:
    """A plugin that is an object."""

    def __init__(self, typeid="cookies"):
        self.typeid = typeid

    @hookimpl
    def registry_shared_objects(self):
        yield SharedObject(self.typeid, list)


RECORD = SharedObject("scores", dict)


# Finding


def test_nothing_is_installed(site):
    """Without plugins there are no types, and nothing is wrong."""
    plugins = load(strict=True)
    assert plugins.plugins == () and plugins.declarations == {} and plugins.problems == ()


def test_entry_points_are_found_with_their_origin(install):
    """An installed plugin is known by its entry point, with its distribution, version and files."""
    path = install("shared-cookies", source("cookies", "jar"), version="1.2")
    plugins = load()
    plugin = Plugin(
        name="shared_cookies",
        distribution="shared-cookies",
        version="1.2",
        source="shared_cookies",
        typeids=("cookies", "jar"),
        files=(str(path),),
    )
    assert plugins.plugins == (plugin,)
    assert plugins.origin("jar") == plugin
    assert list(plugins.declarations) == ["cookies", "jar"]
    assert plugins.declarations["cookies"].factory is dict
    assert plugins.fingerprint() == {"shared_cookies": "1.2"}
    assert str(plugin) == "shared-cookies 1.2"
    with pytest.raises(KeyError):
        plugins.origin("missing")


def test_an_entry_point_may_name_a_class(install):
    """An entry point that names a class or an object in a module is loaded as such."""
    code = (
        "from registry import SharedObject, hookimpl\n"
        "class Cookies:\n"
        "    @hookimpl\n"
        "    def registry_shared_objects(self):\n"
        "        return (SharedObject('cookies', list),)\n"
        "scores = SharedObject('scores', dict)\n"
    )
    install("both", code, points="[shared_registry]\na = both:Cookies\nb = both:scores\n")
    assert set(load().declarations) == {"cookies", "scores"}


def test_our_own_come_first(install):
    """First-party plugins are listed first, then the others by distribution and name."""
    for name in ("zebra", "ape", "shared-registry"):
        install(name, source(name.replace("-", "_")))
    assert [plugin.distribution for plugin in load().plugins] == ["shared-registry", "ape", "zebra"]


def test_multiprocessing_is_left_out(install, monkeypatch):
    """Types with another meaning are loaded only where they are asked for."""
    monkeypatch.delitem(sys.modules, "registry_multiprocessing", raising=False)  # the real one
    install("registry-multiprocessing", source("Namespace"))
    install("other", source("other"))
    assert set(load().declarations) == {"other"}
    assert set(load(extra=["registry_multiprocessing"]).declarations) == {"other", "Namespace"}
    assert set(load(["registry_multiprocessing"]).declarations) == {"Namespace"}


def test_other_groups_are_not_read(install):
    """Entry points of other groups are nothing to us."""
    install("console", source("x"), points="[console_scripts]\nshared_registry = console:main\n")
    assert load().plugins == ()
    assert "console" not in sys.modules


def test_what_is_first_on_the_path_hides_the_rest(site, install, tmp_path, monkeypatch):
    """Of a distribution that is installed twice only the first is looked at, as imports do."""
    install("shared-cookies", source("cookies"), version="1.2")
    later = tmp_path / "later" / "Shared_Cookies-0.9.dist-info"
    later.mkdir(parents=True)
    (later / "METADATA").write_text("Metadata-Version: 2.1\nName: Shared_Cookies\nVersion: 0.9\n")
    (later / "entry_points.txt").write_text("[shared_registry]\nold = shared_cookies\n")
    real = metadata.PathDistribution
    found = [real(next(site.glob("*.dist-info"))), real(later)]
    monkeypatch.setattr(_plugins.metadata, "distributions", lambda: found)
    assert [(plugin.name, plugin.version) for plugin in load().plugins] == [("shared_cookies", "1.2")]


# Breaking


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no cookies')", "RuntimeError: no cookies"),
        ("import absent_module", "ModuleNotFoundError: No module named 'absent_module'"),
        ("def (", "SyntaxError: "),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import sys; sys.exit()", "SystemExit"),
        ("class Odd(BaseException): pass\nraise Odd", "Odd"),
        ("x = 1", "TypeError: it implements no hook; mark registry_shared_objects with @registry.hookimpl"),
        (source("x", factory="lambda: {}"), "DeclarationError: x.exposed must be given"),
        (
            source("x", factory="Jar, readonly=['gett']"),
            "DeclarationError: x.readonly must name exposed methods (it has",
        ),
        (source("connect"), "DeclarationError: typeid must not be a name"),
        (source("x", "x"), "ValueError: it declares the typeid 'x' twice"),
    ],
)
def test_one_broken_plugin_breaks_no_other(install, code, reason):
    """Whatever a plugin does while it is imported, the others are loaded and it is listed with the reason."""
    install("broken", code)
    install("fine", source("fine"))
    plugins = load()
    assert statuses(plugins) == {"broken": "broken", "fine": "on"}
    assert list(plugins.declarations) == ["fine"]
    broken = plugins.plugins[0]
    assert broken.reason.startswith(reason)
    assert "Traceback" in broken.traceback
    assert broken.typeids == ()
    assert plugins.problems == (broken,)
    assert "broken" not in plugins.fingerprint()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('later')", "RuntimeError: later"),
        ("raise SystemExit", "SystemExit"),
        ("return None", "TypeError: registry_shared_objects returned None of type NoneType"),
        ("return 3", "TypeError: registry_shared_objects returned 3 of type int"),
        ("return 'jar'", "TypeError: registry_shared_objects returned 'jar' of type str"),
        ("return SharedObject('x', dict)", "TypeError: registry_shared_objects returned SharedObject("),
        (
            "return [SharedObject('x', dict), 3]",
            "TypeError: registry_shared_objects returned 3 of type int where",
        ),
        ("yield SharedObject('x', dict); raise OSError('half')", "OSError: half"),
    ],
)
def test_a_hook_that_fails(install, body, reason):
    """A hook that raises, or returns something else, breaks its own plugin and no other."""
    install(
        "broken",
        f"from registry import SharedObject, hookimpl\n@hookimpl\ndef registry_shared_objects():\n    {body}\n",
    )
    install("fine", source("fine"))
    plugins = load()
    assert statuses(plugins) == {"broken": "broken", "fine": "on"}
    assert plugins.plugins[0].reason.startswith(reason)
    assert list(plugins.declarations) == ["fine"]


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("registry_shared_object", "", "PluginValidationError: unknown hook 'registry_shared_object'"),
        ("registry_shared_objects", "server", "PluginValidationError: "),
    ],
)
def test_hooks_are_checked(install, name, arguments, reason):
    """A misspelled hook and an argument that does not exist are told, not skipped."""
    install("broken", f"from registry import hookimpl\n@hookimpl\ndef {name}({arguments}): return []\n")
    plugin = load().plugins[0]
    assert plugin.status == "broken"
    assert plugin.reason.startswith(reason)


def test_optional_hooks_of_later_versions(install):
    """A plugin may implement hooks that this version does not know, if it says so."""
    install(
        "later",
        "from registry import hookimpl\n@hookimpl(optionalhook=True)\ndef registry_later(): return 1\n",
    )
    assert statuses(load()) == {"later": "on"}


def test_ctrl_c_is_not_a_broken_plugin(install):
    """An interrupt while plugins are imported ends the loading."""
    install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load()


def test_garbled_metadata(site, install):
    """Metadata that cannot be read is listed, and hides no other plugin."""
    install("broken", source("x"), points="[shared_registry]\nthis is no entry point\n")
    install("fine", source("fine"))
    plugins = load()
    assert plugins.origin("fine").status == "on"
    broken = [plugin for plugin in plugins.plugins if plugin.distribution == "broken"]
    assert [plugin.status for plugin in broken] == ["broken"] * len(broken)


def test_strict_refuses_what_is_broken(install):
    """Under `strict` a broken plugin is an error that tells the reason."""
    install("broken", "raise RuntimeError('no cookies')")
    with pytest.raises(PluginError, match=r"plugin 'broken': broken is broken: RuntimeError: no cookies"):
        load(strict=True)


# Clashes


def test_a_newcomer_does_not_replace_ours(install):
    """A plugin that takes a typeid of ours is off as a whole, and the text tells the cure."""
    install("shared-registry", source("lock"))
    install("newcomer", source("lock", "more", factory="Jar"))
    plugins = load()
    assert statuses(plugins) == {"shared_registry": "on", "newcomer": "off"}
    assert list(plugins.declarations) == ["lock"]
    off = plugins.plugins[1]
    assert off.typeids == ("lock", "more")
    assert off.reason == (
        "its typeid 'lock' is also declared by 'shared_registry' (shared-registry 1.0); settle it by naming "
        "the plugins to use, as in `--plugins A,B`"
    )
    assert plugins.whence("more") == "newcomer 1.0"
    with pytest.raises(PluginError, match="newcomer is off: its typeid 'lock'"):
        load(strict=True)


def test_two_others_are_both_off(install):
    """Of two newcomers neither is guessed at; a third plugin is none of their business."""
    install("ape", source("jar", "a"))
    install("bee", source("jar", "b", factory="Jar"))
    install("cat", source("c"))
    plugins = load()
    assert statuses(plugins) == {"ape": "off", "bee": "off", "cat": "on"}
    assert list(plugins.declarations) == ["c"]
    assert "'bee' (bee 1.0)" in plugins.plugins[0].reason
    assert "'ape' (ape 1.0)" in plugins.plugins[1].reason


def test_naming_settles_a_clash(install):
    """Named plugins are used exactly, so that naming one of two settles it."""
    install("ape", source("jar"))
    install("bee", source("jar", factory="Jar"))
    plugins = load(["bee"], strict=True)
    assert plugins.origin("jar").name == "bee"
    assert statuses(plugins) == {"bee": "on"}
    assert "ape" not in sys.modules


@pytest.mark.parametrize("own", ["ape", "shared-registry"])
def test_naming_both_is_an_error(install, own):
    """Two plugins that were both asked for and clash are an error, whoever made them."""
    install(own, source("jar"))
    install("bee", source("jar", factory="Jar"))
    names = [own.replace("-", "_"), "bee"]
    for only, extra in ((names, []), (names[:1], names[1:]), (None, names)):
        with pytest.raises(PluginError, match="'jar'") as caught:
            load(only, extra)
        assert caught.value.plugin == ", ".join(names)


def test_the_order_of_finding_decides_nothing(install):
    """Who has lost against ours no longer counts against others."""
    install("shared-registry", source("lock"))
    install("ape", source("lock", "jar", factory="Jar"))
    install("bee", source("jar"))
    assert statuses(load()) == {"shared_registry": "on", "ape": "off", "bee": "on"}


def test_equal_records_are_no_clash(install):
    """The same record from two plugins is used once, from the first."""
    install("ape", source("jar"))
    install("bee", source("jar", "b"))
    plugins = load(extra=[SharedObject("jar", dict)], strict=True)
    assert plugins.origin("jar").name == "ape"
    assert set(plugins.declarations) == {"jar", "b"}


def test_two_plugins_of_one_name(install):
    """Two distributions may use one name: both are loaded and told apart, and the bare name is ambiguous."""
    install("ape", source("a"), points="[shared_registry]\nfruit = ape\n")
    install("bee", source("b"), points="[shared_registry]\nfruit = bee\n")
    plugins = load()
    assert statuses(plugins) == {"fruit": "on", "fruit of bee": "on"}
    assert plugins.fingerprint() == {"fruit": "1.0", "fruit of bee": "1.0"}
    with pytest.raises(PluginError, match=r"'fruit' \(ape 1.0\) and 'fruit' \(bee 1.0\)"):
        load(["fruit"])
    assert set(load(["bee"]).declarations) == {"b"}


# Naming


def test_items_of_every_kind(site, install, tmp_path):
    """An entry point, a module by name or itself, a file, a class, an object and a record are all plugins."""
    install("shared-cookies", source("one"))
    (site / "by_name.py").write_text(source("two"))
    (site / "by_itself.py").write_text(source("three"))
    (tmp_path / "by_path.py").write_text(source("four"))
    module = importlib.import_module("by_itself")
    items = ["shared_cookies", "by_name", module, "./by_path.py", Cookies, Cookies("six"), RECORD]
    plugins = load(items, strict=True)
    assert list(plugins.declarations) == ["one", "two", "three", "four", "cookies", "six", "scores"]
    assert [plugin.name for plugin in plugins.plugins] == [
        "shared_cookies",
        "by_name",
        "by_itself",
        "by_path",
        f"{__name__}:Cookies",
        f"{__name__}:Cookies of {__name__}:Cookies",
        "scores",
    ]
    assert [plugin.source for plugin in plugins.plugins] == [
        "shared_cookies",
        "by_name",
        "by_itself",
        str(tmp_path / "by_path.py"),
        f"{__name__}:Cookies",
        f"{__name__}:Cookies",
        "builtins:dict",
    ]


def test_extra_adds(install, site):
    """Extra items come on top of what is installed, or of what is named."""
    install("ape", source("a"))
    install("bee", source("b"))
    assert set(load(extra=[RECORD]).declarations) == {"a", "b", "scores"}
    assert set(load(["ape"], extra=[RECORD]).declarations) == {"a", "scores"}
    assert set(load([], extra=[RECORD]).declarations) == {"scores"}


def test_one_plugin_named_twice(install):
    """A plugin that is meant twice, in whatever way, is loaded once and keeps its origin."""
    install("shared-cookies", source("cookies"), points="[shared_registry]\ncookies = shared_cookies\n")
    load()
    module = sys.modules["shared_cookies"]
    plugins = load(["cookies", "shared_cookies", module], extra=["cookies"], strict=True)
    assert [(plugin.name, plugin.distribution) for plugin in plugins.plugins] == [("cookies", "shared-cookies")]
    assert load([module]).plugins[0].distribution == "shared-cookies"


@pytest.mark.parametrize(
    "item",
    ["absent", "absent.module", "./absent.py", "absent.py", "two words", "", ".relative", "no-such-thing"],
)
def test_what_cannot_be_found(site, item):
    """A name that leads nowhere is an error at once, even where problems are only listed."""
    with pytest.raises(PluginError) as caught:
        load(extra=[item])
    assert caught.value.plugin == item


def test_a_part_of_a_package_that_is_missing(site):
    """A missing module of an existing package is not found; a missing import of an existing one breaks it."""
    (site / "package").mkdir()
    (site / "package" / "__init__.py").write_text("")
    (site / "package" / "inner.py").write_text("import package.absent")
    with pytest.raises(PluginError, match="neither installed"):
        load(["package.absent"])
    assert statuses(load(["package.inner"])) == {"package.inner": "broken"}


def test_a_string_is_not_a_list(site):
    """A string where a list is wanted would be a row of letters."""
    with pytest.raises(PluginError, match=r"as a list, such as \['registry_sync'\]"):
        load("registry_sync")


def test_objects_that_are_no_plugins(site):
    """Something without a hook is broken, as is a class that cannot be made."""

    class Needy(Cookies):
        def __init__(self, typeid):
            super().__init__(typeid)

    plugins = load([3, Needy, object()])
    assert [plugin.status for plugin in plugins.plugins] == ["broken"] * 3


# Files


def test_a_file_is_imported_once(tmp_path, site):
    """A file gets a module name of its own, hides no other module, and its classes can be pickled."""
    (tmp_path / "json.py").write_text(source("jar", factory="Jar"))
    first, second = load(["./json.py"]), load([str(tmp_path / "json.py")])
    assert first.declarations == second.declarations
    factory = first.declarations["jar"].factory
    assert re.fullmatch(r"json_[0-9a-f]{8}", factory.__module__)
    assert pickle.loads(pickle.dumps(factory)) is factory
    assert first.plugins[0].files == (str(tmp_path / "json.py"),)
    assert hasattr(importlib.import_module("json"), "dumps")


def test_a_file_that_is_imported_already(site):
    """The path of an imported module means that module."""
    (site / "shared.py").write_text(source("jar", factory="Jar"))
    module = importlib.import_module("shared")
    assert load([str(site / "shared.py")]).declarations["jar"].factory is module.Jar


def test_a_broken_file_can_be_mended(tmp_path, site):
    """A file that failed leaves no half a module behind."""
    path = tmp_path / "shared.py"
    path.write_text("raise RuntimeError")
    broken = load(["./shared.py"])
    assert statuses(broken) == {"shared": "broken"}
    assert broken.plugins[0].files == (str(path),)
    path.write_text(source("jar"))
    assert broken.changed() == [str(path)]
    assert statuses(load(["./shared.py"])) == {"shared": "on"}


def test_files_of_a_package(site):
    """The files of a plugin are the loaded ones of its package, and those of its factories."""
    package = site / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "unused.py").write_text("")
    (package / "used.py").write_text("")
    (site / "elsewhere.py").write_text("class Jar:\n    def get(self): ...\n")
    (package / "plugin.py").write_text(
        "import package.used\nfrom elsewhere import Jar\n"
        + source("jar", factory="Jar2").replace("class Jar:", "Jar2 = Jar\nclass Jar:")
    )
    plugin = load(["package.plugin"], strict=True).plugins[0]
    assert [os.path.relpath(path, site) for path in plugin.files] == [
        "elsewhere.py",
        "package/__init__.py",
        "package/plugin.py",
        "package/used.py",
    ]


def test_changed_files_are_seen(site, install):
    """A file that was written, touched or removed since it was loaded is named."""
    paths = {name: install(name, source(name)) for name in ("ape", "bee", "cat", "dog")}
    plugins = load()
    assert plugins.changed() == []
    paths["ape"].write_text(source("ape") + "# more\n")
    paths["bee"].unlink()
    os.utime(paths["cat"], (1, 1))
    assert plugins.changed() == sorted(str(paths[name]) for name in ("ape", "bee", "cat"))
    assert plugins.changed() == sorted(str(paths[name]) for name in ("ape", "bee", "cat"))


def test_fingerprints_of_what_has_no_version(tmp_path, site):
    """Code without a version is told by its content, wherever it lies."""
    prints = []
    for number, code in enumerate([source("a"), source("a"), source("a") + "# changed\n", source("b")]):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "shared.py").write_text(code)
        prints.append(load([f"./{number}/shared.py"]).fingerprint()["shared"])
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert load([RECORD]).fingerprint() == load([RECORD]).fingerprint()


# In another process


def test_spec_rebuilds(site, install, tmp_path, monkeypatch):
    """The spec can be pickled, and gives the same types when it is loaded, also from another directory."""
    install("shared-cookies", source("one"))
    (tmp_path / "by_path.py").write_text(source("two", factory="Jar"))
    (site / "by_itself.py").write_text(source("three"))
    module = importlib.import_module("by_itself")
    by_path = load(["./by_path.py"]).declarations["two"].factory
    given = ["shared_cookies", "./by_path.py", module, sys.modules[by_path.__module__], Cookies, RECORD]
    plugins = load(given, extra=["./by_path.py"])
    path = str(tmp_path / "by_path.py")
    assert plugins.spec == (("shared_cookies", path, "by_itself", path, Cookies, RECORD), (path,))
    monkeypatch.chdir("/")
    only, extra = pickle.loads(pickle.dumps(plugins.spec))
    assert load(only, extra).declarations == plugins.declarations
    assert load().spec == (None, ())


def test_spec_in_a_fresh_process(site, tmp_path):
    """A spec that crossed to another process gives the same fingerprint there."""
    (tmp_path / "by_path.py").write_text(source("jar", factory="Jar"))
    plugins = load(["./by_path.py"], extra=[RECORD])
    code = (
        "import pickle, sys; from registry._plugins import load; spec = pickle.load(sys.stdin.buffer); "
        "print(load(*spec, strict=True).fingerprint())"
    )
    root = os.path.dirname(os.path.dirname(registry.__file__))
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(plugins.spec),
        env={**os.environ, "PYTHONPATH": root},
        cwd="/",
        capture_output=True,
        check=True,
    )
    assert run.stdout.decode().strip() == str(plugins.fingerprint())


def test_spec_of_what_no_other_process_can_find(site):
    """What has no name that another process knows is named in the error."""

    class Local(Cookies):
        pass

    lonely = ModuleType("lonely")
    lonely.hook = Cookies()
    for item, name in (
        (Local, "Local"),
        (SharedObject("jar", lambda: Cookies(), exposed=["get"]), "jar"),
        (lonely, "lonely"),
    ):
        plugins = load([item])
        with pytest.raises(PluginError, match="another process") as caught:
            _ = plugins.spec
        assert name in caught.value.plugin


# The manager, and who has what


def test_the_manager_is_fresh_and_has_what_is_on(install):
    """Each loading has a manager of its own, which calls only plugins that are on."""
    install("ape", source("jar"))
    install("bee", source("jar", factory="Jar"))
    install("cat", source("c"))
    install("dog", "raise RuntimeError")
    one, two = load(), load()
    assert one.manager is not two.manager
    assert [name for name, _ in one.manager.list_name_plugin()] == ["cat"]
    assert one.manager.hook.registry_shared_objects() == [[SharedObject("c", dict)]]


def test_records_are_registered_as_plugins(site):
    """A record by itself is a plugin like any other."""
    assert load([RECORD]).manager.hook.registry_shared_objects() == [[RECORD]]


def test_whence(install):
    """Who would provide a typeid is known of what is on, off or left out, and of nobody else."""
    install("shared-cookies", source("cookies"), version="1.2")
    install("registry-multiprocessing", source("Namespace"))
    assert whence("cookies") == load().whence("cookies") == "shared-cookies 1.2"
    assert whence("Namespace") == "registry-multiprocessing 1.0"
    assert load().whence("Namespace") is None
    assert whence("missing") is None
    assert load([RECORD]).whence("scores") == "scores"


def test_this_installation():
    """Whatever is installed here loads in its default set, or is told."""
    plugins = load()
    assert all(plugin.status == "on" or plugin.reason for plugin in plugins.plugins)


def test_a_named_plugin_that_is_not_on_is_an_error(tmp_path: Path) -> None:
    """What was merely found may be broken; what was asked for by name may not."""
    broken = tmp_path / "broken.py"
    broken.write_text("raise ValueError('no')\n")
    plugins = load(extra=[str(broken)])
    with pytest.raises(PluginError, match="broken: .*ValueError: no"):
        plugins.required()
    assert load(only=["registry_containers"]).required().problems == ()
