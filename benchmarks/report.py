"""What a run has found: as text, as JSON, and as a table and plots for the documentation."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

from benchmarks.harness import Bar, Row

VERSIONS = ("redis", "hiredis", "diskcache", "lmdb", "UltraDict", "rpyc", "Pyro5", "uvloop", "numpy")


@attrs.define
class Run:
    """One run of the benchmarks.

    Attributes:
        machine: What it ran on, see `machine`.
        missing: The peers that could not be measured, and why.
        skipped: Work that failed with a peer, and how.
        rows: What was measured.
    """

    machine: dict[str, str]
    missing: dict[str, str]
    skipped: dict[str, str]
    rows: list[Row]


def machine() -> dict[str, str]:
    """Describe where this runs, and the versions of what is measured."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    server = shutil.which("redis-server")
    if server:
        said = subprocess.run([server, "--version"], capture_output=True, text=True, check=False).stdout
        versions["redis-server"] = said.partition("v=")[2].partition(" ")[0]
    return {
        "day": time.strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "processor": f"{os.cpu_count()} x {model}",
        # Above the number of processors, others were at work, and no figure is worth much.
        "load before it began": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known",
        "Python": platform.python_version(),
        "shared-registry": metadata.version("shared-registry"),
        **versions,
    }


def dump(run: Run) -> dict[str, Any]:
    """Return a run as JSON has it."""
    return attrs.asdict(run)


def load(data: dict[str, Any]) -> Run:
    """Return the run that `dump` made this of."""
    rows = [Row(**{**row, "bars": [Bar(**bar) for bar in row["bars"]]}) for row in data["rows"]]
    return Run(data["machine"], data["missing"], data["skipped"], rows)


# -- text


def number(value: float | None) -> str:
    """Write a figure with three digits that matter."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.2g}"


def text(row: Row) -> str:
    """Return a row as lines: who, the median, the range of the rounds, and ours divided by it; then the bars."""
    title = ", ".join(filter(None, (row.what, row.place)))
    lines = [f"{title} ({row.unit}){'; ' + row.note if row.note else ''}"]
    for name, rounds in row.figures.items():
        ratio = row.ratio(name) if name != row.ours else None
        times = f"{number(ratio)} x" if ratio is not None else ""
        lines.append(f"    {name:<18}{number(row.median(name)):>10}  {noise(rounds):<22}{times:>10}")
    lines += [f"    {verdict(bar):<13}{bar.text}{measured(bar)}" for bar in row.bars]
    return "\n".join(line.rstrip() for line in lines)


def noise(rounds: list[float]) -> str:
    """Write the range of the rounds."""
    return f"({number(min(rounds))}..{number(max(rounds))})" if len(rounds) > 1 else ""


def verdict(bar: Bar) -> str:
    """Say whether a bar is met."""
    return {True: "met", False: "NOT MET", None: "not measured"}[bar.met]


def measured(bar: Bar) -> str:
    """Say what was measured."""
    return f": {number(bar.value)}" if bar.value is not None else ""


def ending(run: Run) -> str:
    """Return what follows the rows: what is missing, what failed, and how many bars are met."""
    lines = [f"missing: {name} ({reason})" for name, reason in sorted(run.missing.items())]
    lines += [f"failed: {what} ({reason})" for what, reason in sorted(run.skipped.items())]
    bars = [bar for row in run.rows for bar in row.bars]
    lines.append(
        f"{sum(bar.met is True for bar in bars)} of {len(bars)} bars are met, "
        f"{sum(bar.met is None for bar in bars)} could not be measured"
    )
    return "\n".join(lines)


# -- the documentation


def markdown(run: Run) -> str:
    """Return the tables for the documentation."""
    about = ", ".join(f"{name} {value}" for name, value in run.machine.items() if name not in ("day", "processor"))
    lines = [f"Measured on {run.machine['day']}, {run.machine['processor']}, {about}.", ""]
    lines += ["| work | bar | measured | |", "|---|---|---|---|"]
    for row in run.rows:
        title = ", ".join(filter(None, (row.what, row.place)))
        for bar in row.bars:
            lines.append(f"| {title} | {bar.text} | {number(bar.value)} | {verdict(bar)} |")
    lines += ["", "| work | unit | median (smallest..largest round) of each |", "|---|---|---|"]
    for row in run.rows:
        title = ", ".join(filter(None, (row.what, row.place)))
        figures = ", ".join(
            f"{name} **{number(row.median(name))}** {noise(rounds)}".strip() for name, rounds in row.figures.items()
        )
        lines.append(f"| {title} | {row.unit} | {figures} |")
    for name, reason in sorted(run.missing.items()):
        lines += ["", f"Missing in this run: {name}, {reason}."]
    return "\n".join(lines).replace("<=", "≤").replace(">=", "≥") + "\n"


def write(run: Run, directory: Path) -> None:
    """Write ``figures.md``, which a page beside the directory includes, and its pictures, if matplotlib is there."""
    directory.mkdir(parents=True, exist_ok=True)
    pictures = [f"![{about}]({directory.name}/{name})" for name, about in _draw(run, directory).items()]
    (directory / "figures.md").write_text("\n\n".join([*pictures, markdown(run)]), encoding="utf-8")


def _draw(run: Run, directory: Path) -> dict[str, str]:
    """Draw what there is to draw; return the names of the pictures, with what they show."""
    try:
        import matplotlib
    except ImportError:
        print('no pictures: matplotlib is not installed: pip install "shared-registry[bench]"')
        return {}
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "speed", "font.size": 9})
    drawn = {}
    for subject, about in (("round-trips", "One call at a time, beside the peers"), ("reads", "A repeated get")):
        rows = [row for row in run.rows if row.subject == subject and row.unit == "us"]
        if rows:
            _beside(rows, directory / f"{subject}.svg")
            drawn[f"{subject}.svg"] = about
    series = {row.series: [each for each in run.rows if each.series == row.series] for row in run.rows if row.series}
    clients = series.pop("clients", None)
    if clients:
        _curves({"clients": clients}, "clients", "calls a second", directory / "clients.svg")
        drawn["clients.svg"] = "Gets a second by many clients together"
    if series:
        _curves(series, "how many", "µs a call", directory / "sizes.svg")
        drawn["sizes.svg"] = "What a call costs as there are more keys, objects, waiters and idle sessions"
    return drawn


def _beside(rows: list[Row], path: Path) -> None:
    """Draw bars side by side: a panel for each row, on a scale of powers of ten."""
    from matplotlib import pyplot

    columns = 2 if len(rows) > 1 else 1
    height = (len(rows) + columns - 1) // columns
    figure, panels = pyplot.subplots(height, columns, figsize=(7.5, 2.1 * height), squeeze=False)
    for panel, row in zip(panels.flat, rows, strict=False):
        names = sorted((name for name in row.figures if row.median(name)), key=lambda name: row.median(name) or 0.0)
        colours = ["tab:blue" if name.startswith("registry") else "lightgrey" for name in names]
        panel.barh(names, [row.median(name) or 0.0 for name in names], color=colours)
        panel.set_xscale("log")
        panel.set_title(", ".join(filter(None, (row.what, row.place))) + ", µs", fontsize=9)
        panel.minorticks_off()
        panel.invert_yaxis()
    _save(figure, path)


def _curves(series: dict[str, list[Row]], across: str, up: str, path: Path) -> None:
    """Draw curves into one panel: a line for each series, or for each peer where there is only one."""
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(6, 3.2))
    for name, rows in series.items():
        for peer in dict.fromkeys(peer for row in rows for peer in row.figures):
            points = [(row.x, row.median(peer)) for row in rows if row.median(peer) is not None]
            label = peer if len(series) == 1 else name
            if len(points) > 1:
                panel.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    panel.set_xscale("symlog", linthresh=1)
    panel.minorticks_off()
    panel.set_ylim(bottom=0)
    panel.set_xlabel(across)
    panel.set_ylabel(up)
    panel.legend(fontsize=8, frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
