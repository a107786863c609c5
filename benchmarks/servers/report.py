"""What came out, as JSON, Markdown and tables: ours and its limits, and each rival twice, by who reads."""

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.servers.contestants import CONTESTANTS, GATEWAY, LONE_OURS, MEASURE, OURS
from benchmarks.servers.rivals import READS

Cell = Mapping[str, Any]
Lines = list[list[str]]
DIRECT_TITLE, GATEWAY_TITLE = "direct / it", "by the gateway / it"


def machine() -> dict[str, Any]:
    """Where and when, and how busy the machine is with other things."""
    packages = ("torchserve", "torch", "feast", "fastapi", "uvicorn", "kserve", "mlflow")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "system": platform.platform(),
        **{name: version(name) for name in packages},
    }


def write(out: Path, facts: Mapping[str, Any], cells: Sequence[Cell], missing: Mapping[str, str]) -> None:
    content = {"machine": facts, "cells": list(cells), "missing": dict(missing)}
    (out / "serving.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (out / "serving.md").write_text(markdown(facts, cells, missing), encoding="utf-8")


def write_overload(out: Path, result: Mapping[str, Any]) -> None:
    (out / "overload.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def tables(cells: Sequence[Cell]) -> dict[str, Lines]:
    """By title; the first line of each is its heads."""
    found = {}
    for store in dict.fromkeys(cell["store"] for cell in cells):
        of_store = [cell for cell in cells if cell["store"] == store]
        own = [cell for cell in of_store if cell["session"] in ("ours", "grid")]
        if own:
            found[f"Ours, and no-ops on the same TorchServe; features in {store}"] = _figures_of(own)
        for read in READS:
            rivals = [cell for cell in of_store if cell["session"] not in ("ours", "grid")]
            rivals = [cell for cell in rivals if cell["server"] in MEASURE or cell["server"].endswith(read)]
            if any(cell["server"].endswith(read) for cell in rivals):
                found[f"Rivals with {read}; features in {store}"] = _beside_ours(rivals)
    return found


def _figures_of(cells: Sequence[Cell]) -> Lines:
    concurrencies = sorted({cell["concurrency"] for cell in cells})
    lines = [
        ["server", *(f"c={c}: req/s (lowest to highest), p50, p99 ms" for c in concurrencies), "refused"]
    ]
    for server in _in_order(cells):
        mine = [cell for cell in cells if cell["server"] == server]
        lines.append([server, *(_figures(_at(mine, c)) for c in concurrencies), _refused(mine)])
    return lines


def _beside_ours(cells: Sequence[Cell]) -> Lines:
    """A line a rival and concurrency, with ours of the same rounds over it."""
    heads = ["server", "clients", "req/s (lowest to highest), p50, p99 ms", DIRECT_TITLE, GATEWAY_TITLE,
             "p50 of it / latency profile, direct", "refused"]  # fmt: skip
    lines = [heads]
    for server in [one for one in _in_order(cells) if one not in MEASURE]:
        [session] = {cell["session"] for cell in cells if cell["server"] == server}
        of_session = [cell for cell in cells if cell["session"] == session]
        for c in sorted({cell["concurrency"] for cell in of_session}):
            here = [cell for cell in of_session if cell["concurrency"] == c]
            mine = [cell for cell in here if cell["server"] == server]
            lines.append(
                [
                    *(server, str(c), _figures(mine)),
                    *(_ratio(here, ours, server, "per_s") for ours in (OURS, GATEWAY)),
                    _ratio(here, server, LONE_OURS, "p50_ms") if c == 1 else "",
                    _refused(mine),
                ]
            )
    return lines


def ratios(cells: Iterable[Cell], over: str, under: str, of: str) -> list[float]:
    """A round each in which both were measured and answered."""
    rounds: dict[int, dict[str, float]] = {}
    for cell in cells:
        rounds.setdefault(cell["round"], {})[cell["server"]] = cell[of]
    return [turn[over] / turn[under] for turn in rounds.values() if over in turn and turn.get(under)]


def _ratio(cells: Iterable[Cell], over: str, under: str, of: str) -> str:
    found = ratios(cells, over, under, of)
    if not found:
        return ""
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def markdown(facts: Mapping[str, Any], cells: Sequence[Cell], missing: Mapping[str, str]) -> str:
    lines = ["# Serving, side by side", "", ", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    for title, (heads, *rows) in tables(cells).items():
        lines += [f"## {title}", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    lines += [f"- not measured: {name}: {reason}" for name, reason in missing.items()]
    return "\n".join(lines) + "\n"


def show(cells: Sequence[Cell], missing: Mapping[str, str]) -> None:
    console = Console(highlight=False)
    for title, (heads, *rows) in tables(cells).items():
        table = Table(*heads, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for name, reason in missing.items():
        console.print(f"not measured: {name}: {reason}")


def _in_order(cells: Sequence[Cell]) -> list[str]:
    """The order of measuring changes from round to round; the order of showing does not."""
    names = {cell["server"] for cell in cells}
    known = [name for name in CONTESTANTS if name in names]
    return [*known, *sorted(names - set(known))]


def _at(cells: Sequence[Cell], concurrency: int) -> list[Cell]:
    return [cell for cell in cells if cell["concurrency"] == concurrency]


def _figures(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    speed = [cell["per_s"] for cell in cells]
    p50, p99 = (statistics.median(cell[name] for cell in cells) for name in ("p50_ms", "p99_ms"))
    return f"{statistics.median(speed):,.0f} ({min(speed):,.0f} to {max(speed):,.0f}), {p50:.1f}, {p99:.0f}"


def _refused(cells: Sequence[Cell]) -> str:
    """Shares by number of clients; the statuses come from a second that looked at them."""
    parts = []
    for cell in cells:
        if cell["refused"]:
            kinds = ", ".join(kind for kind in cell["statuses"] if not kind.startswith("2"))
            parts.append(f"c={cell['concurrency']}: {cell['refused'] / cell['requests']:.1%} ({kinds})")
        if not cell["requests"]:
            parts.append(f"c={cell['concurrency']}: no answer at all")
        if cell["broken"] or cell["timeouts"]:
            parts.append(f"c={cell['concurrency']}: {cell['broken'] + cell['timeouts']} cut or late")
    return "; ".join(parts) or "none"
