"""What came out: a table, JSON, Markdown, and a plot of ratios to the limit."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

from benchmarks.servers.contestants import CONTESTANTS

mpl.use("Agg")
import matplotlib.pyplot as plt

Cell = Mapping[str, Any]
Row = dict[str, Any]
OURS, LIMIT = "ours, throughput", "no-op, throughput"
LONE_OURS = "ours, latency"
SDK = "KServe ModelServer"
NOT_RIVALS = ("ours", "no-op", "gateway")


def machine() -> dict[str, Any]:
    """Where and when, and how busy the machine was with other things."""
    packages = ("torchserve", "torch", "feast", "fastapi", "uvicorn", "kserve", "mlflow", "scikit-learn")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "system": platform.platform(),
        **{name: version(name) for name in packages},
    }


def rows(cells: Sequence[Cell]) -> list[Row]:
    """One row a store, server and concurrency: the median of its rounds, refusals summed."""
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    order = [*CONTESTANTS, *sorted({cell["server"] for cell in cells})]
    # the order of measuring changes from round to round; the order of showing does not
    for cell in sorted(cells, key=lambda cell: order.index(cell["server"])):
        groups.setdefault((cell["store"], cell["server"], cell["concurrency"]), []).append(cell)
    return [
        {
            **dict(zip(("store", "server", "concurrency"), key, strict=True)),
            **{name: statistics.median(c[name] for c in found) for name in ("per_s", "p50_ms", "p99_ms")},
            "requests": sum(c["requests"] for c in found),
            "refused": sum(c["refused"] for c in found),
            "broken": sum(c["broken"] + c["timeouts"] for c in found),
            "statuses": {k: v for c in found for k, v in c["statuses"].items()},
        }
        for key, found in groups.items()
    ]


def ratios(cells: Sequence[Cell]) -> list[Row]:
    """What we promise, the median over rounds of a round's ratio; None where a part is missing."""
    found = []
    by_place: dict[tuple[str, int], dict[int, dict[str, Cell]]] = {}
    for cell in cells:
        place = by_place.setdefault((cell["store"], cell["concurrency"]), {})
        place.setdefault(cell["round"], {})[cell["server"]] = cell
    for (store, concurrency), rounds in by_place.items():
        rivals = {name for turn in rounds.values() for name in turn if not name.startswith(NOT_RIVALS)}
        others = rivals - {SDK}
        found.append(
            {
                "store": store,
                "concurrency": concurrency,
                "of_the_limit": _median(rounds, lambda t: t[OURS]["per_s"] / t[LIMIT]["per_s"]),
                "times_kserve": _median(rounds, lambda t: t[OURS]["per_s"] / t[SDK]["per_s"]),
                "times_best_other": _median(
                    rounds, lambda t, names=others: t[OURS]["per_s"] / max(t[n]["per_s"] for n in names)
                ),
                "p99_of_best_rival": _median(
                    rounds, lambda t, names=rivals: t[OURS]["p99_ms"] / min(t[n]["p99_ms"] for n in names)
                ),
                "latency_p50_of_kserve": _median(rounds, lambda t: t[LONE_OURS]["p50_ms"] / t[SDK]["p50_ms"]),
            }
        )
    return found


def write(out: Path, facts: Row, cells: Sequence[Cell], missing: Mapping[str, str]) -> None:
    content = {
        "machine": facts,
        "cells": list(cells),
        "rows": rows(cells),
        "ratios": ratios(cells),
        "missing": dict(missing),
    }
    (out / "serving.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (out / "serving.md").write_text(markdown(facts, cells, missing), encoding="utf-8")
    if any(cell["server"] == LIMIT for cell in cells):
        plot(cells, out / "serving.png")


def write_overload(out: Path, result: Row) -> None:
    (out / "overload.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def markdown(facts: Row, cells: Sequence[Cell], missing: Mapping[str, str]) -> str:
    said = ", ".join(f"{name} {value}" for name, value in facts.items())
    lines = ["# Serving, side by side", "", said, ""]
    concurrencies = sorted({cell["concurrency"] for cell in cells})
    for store in dict.fromkeys(cell["store"] for cell in cells):
        heads = [f"c={c}: req/s, p50, p99 ms" for c in concurrencies]
        lines += [f"## {store}", "", "| server | " + " | ".join([*heads, "not answered 2xx"]) + " |"]
        lines += ["|---" * (len(heads) + 2) + "|"]
        of_store = [row for row in rows(cells) if row["store"] == store]
        for server in dict.fromkeys(row["server"] for row in of_store):
            at = {row["concurrency"]: row for row in of_store if row["server"] == server}
            figures = [_figures(at.get(c)) for c in concurrencies]
            lines.append(f"| {server} | " + " | ".join([*figures, _failures(at.values())]) + " |")
        lines += ["", "| clients | " + " | ".join(TITLES.values()) + " |", "|---" * (len(TITLES) + 1) + "|"]
        for row in ratios([cell for cell in cells if cell["store"] == store]):
            lines.append(
                f"| {row['concurrency']} | " + " | ".join(_ratio(row[name]) for name in TITLES) + " |"
            )
        lines.append("")
    lines += [f"- {name}: {reason}" for name, reason in missing.items()]
    return "\n".join(lines) + "\n"


TITLES = {
    "of_the_limit": "throughput profile / no-op, req/s",
    "times_kserve": "/ KServe, req/s",
    "times_best_other": "/ best other, req/s",
    "p99_of_best_rival": "p99 / lowest p99 of a rival",
    "latency_p50_of_kserve": "latency profile / KServe, p50",
}


def show(cells: Sequence[Cell], missing: Mapping[str, str]) -> None:
    console = Console(highlight=False)
    for store in dict.fromkeys(cell["store"] for cell in cells):
        table = Table(title=f"Serving, features in {store}", title_justify="left")
        table.add_column("server")
        of_store = [row for row in rows(cells) if row["store"] == store]
        concurrencies = sorted({row["concurrency"] for row in of_store})
        for c in concurrencies:
            table.add_column(f"c={c}\nreq/s, p50, p99 ms", justify="right")
        table.add_column("not 2xx")
        for server in dict.fromkeys(row["server"] for row in of_store):
            at = {row["concurrency"]: row for row in of_store if row["server"] == server}
            table.add_row(server, *(_figures(at.get(c)) for c in concurrencies), _failures(at.values()))
        console.print(table)
        table = Table(title="Ratios (median over rounds)", title_justify="left")
        table.add_column("clients", justify="right")
        for title in TITLES.values():
            table.add_column(title, justify="right")
        for row in ratios([cell for cell in cells if cell["store"] == store]):
            table.add_row(str(row["concurrency"]), *(_ratio(row[name]) for name in TITLES))
        console.print(table)
    for name, reason in missing.items():
        console.print(f"not measured: {name}: {reason}")


def plot(cells: Sequence[Cell], file: Path) -> None:
    """Throughput of each server over the limit's, a panel a concurrency, a colour a store."""
    found = rows(cells)
    concurrencies = sorted({row["concurrency"] for row in found})
    stores = list(dict.fromkeys(row["store"] for row in found))
    servers = list(dict.fromkeys(row["server"] for row in found if row["server"] != LIMIT))[::-1]
    value = {(r["store"], r["server"], r["concurrency"]): r["per_s"] for r in found}
    figure, axes = plt.subplots(
        1,
        len(concurrencies),
        figsize=(2.4 + 3.2 * len(concurrencies), 1.4 + 0.45 * len(servers)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    height = 0.8 / len(stores)
    for axis, concurrency in zip(axes[0], concurrencies, strict=True):
        for index, store in enumerate(stores):
            limit = value.get((store, LIMIT, concurrency))
            shares = [
                value.get((store, name, concurrency), 0.0) / limit if limit else 0.0 for name in servers
            ]
            places = [y + (index - (len(stores) - 1) / 2) * height for y in range(len(servers))]
            bars = axis.barh(places, shares, height * 0.9, label=store, color=f"C{index}")
            axis.bar_label(bars, [f"{s:.2g}" if s else "" for s in shares], padding=2, fontsize=7)
        axis.axvline(1, color="0.4", linewidth=0.8, linestyle="--")
        axis.set_xscale("log")
        axis.margins(x=0.18)
        axis.set_title(f"{concurrency} client{'s' if concurrency > 1 else ''}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_yticks(range(len(servers)), servers)
    axes[0][-1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.supxlabel(
        "requests a second, over the no-op handler's on the same TorchServe (dashed: 1)", fontsize=9
    )
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _median(rounds: Mapping[int, Mapping[str, Cell]], ratio: Any) -> float | None:
    try:
        return statistics.median(ratio(turn) for turn in rounds.values())
    except (KeyError, ValueError, ZeroDivisionError):
        return None


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _figures(row: Row | None) -> str:
    return "" if row is None else f"{row['per_s']:,.0f}, {row['p50_ms']:.1f}, {row['p99_ms']:.0f}"


def _failures(found: Any) -> str:
    """Shares by status; the statuses come from a second that looked at them."""
    parts = []
    for row in found:
        if row["refused"]:
            kinds = ", ".join(k for k in row["statuses"] if not k.startswith("2"))
            parts.append(f"c={row['concurrency']}: {row['refused'] / row['requests']:.1%} ({kinds})")
        if not row["requests"]:
            parts.append(f"c={row['concurrency']}: no answer at all")
        if row["broken"]:
            parts.append(f"c={row['concurrency']}: {row['broken']} cut or late")
    return "; ".join(parts) or "none"
