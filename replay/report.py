"""The report of a replay: the policies in a table, what each did and when, as Markdown and HTML."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from core.workspace import write_atomically
from replay.config import Prices

COLUMNS = (
    "policy", "trainings", "passed", "promoted", "taken back", "log-loss", "answers known", "cost",
)  # fmt: skip


@dataclass(frozen=True)
class PolicyResult:
    """What a policy did, and what it cost."""

    name: str
    trainings: int
    passed: int
    promoted: int
    taken_back: int
    """Canaries that were rolled back, and champions that were demoted."""
    known: int
    """Answers whose outcome is known at the end."""
    nats: float
    """Their summed log-loss."""
    cost: float
    losses: Mapping[str, float]
    """Moment -> log-loss of its answers."""
    events: Sequence[tuple[str, str]]
    """Moment and what happened, in order."""

    @property
    def log_loss(self) -> float:
        return self.nats / self.known if self.known else float("nan")

    def row(self) -> tuple[str, ...]:
        """The cells of COLUMNS."""
        counts = (self.trainings, self.passed, self.promoted, self.taken_back)
        shown = "" if not self.known else f"{self.log_loss:.4f}"
        return (self.name, *map(str, counts), shown, f"{self.known:,}", f"{self.cost:,.1f}")


def summarised(name: str, ledger: Sequence[Mapping[str, Any]], prices: Prices) -> PolicyResult:
    """From the rows of a ledger (replay/ledger.py)."""

    def of(what: str) -> list[Mapping[str, Any]]:
        return [row for row in ledger if row["what"] == what]

    known, rollouts = of("came true"), of("rolled out")
    nats = float(sum(row["nats"] for row in known))
    trainings = len(of("trained"))
    back = [row for row in rollouts if row["phase"] != "promoted"]
    cost = prices.value * nats + prices.training * trainings + prices.rollout * len(rollouts)
    return PolicyResult(
        name=name,
        trainings=trainings,
        passed=sum(row["passed"] for row in of("trained")),
        promoted=len(rollouts) - len(back),
        taken_back=len(back) + len(of("demoted")),
        known=sum(row["rows"] for row in known),
        nats=nats,
        cost=cost,
        losses={row["at"]: row["log_loss"] for row in known},
        events=[(row["at"], text) for row in ledger if (text := _event(row))],
    )


def write_report(folder: Path, title: str, results: Sequence[PolicyResult]) -> Path:
    """Write report.md and report.html into `folder`; returns the path of the second."""
    write_atomically(folder / "report.md", _markdown(title, results))
    page = folder / "report.html"
    write_atomically(page, _page(title, results))
    return page


def _event(row: Mapping[str, Any]) -> str:
    match row["what"]:
        case "trained":
            return f"trained: {row['program']}" if row["passed"] else f"trained, refused: {row['reason']}"
        case "rolled out":
            return f"rollout of {row['program']}: {row['phase'].replace('_', ' ')}, {row['reason']}"
        case "demoted":
            return f"{row['program']} was taken back: {row['reason']}"
        case "not trained":
            return f"not trained: {row['reason']}"
    return ""


def _markdown(title: str, results: Sequence[PolicyResult]) -> str:
    lines = [f"# {title}", "", _line(COLUMNS), _line(["---"] * len(COLUMNS))]
    lines += [_line(result.row()) for result in results]
    for result in results:
        lines += ["", f"## {result.name}", "", "| moment | what happened |", "|---|---|"]
        lines += [_line((at[:10], text)) for at, text in result.events]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _page(title: str, results: Sequence[PolicyResult]) -> str:
    parts = [f"<h1>{html.escape(title)}</h1>", _table(COLUMNS, [result.row() for result in results])]
    parts.append("<h2>Log-loss of the answers, by moment</h2>" + loss_plot(results))
    for result in results:
        rows = [(at[:10], text) for at, text in result.events]
        parts.append(f"<h2>{html.escape(result.name)}</h2>" + _table(("moment", "what happened"), rows))
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}"
        "table{border-collapse:collapse;display:block;overflow-x:auto}"
        "td,th{border-bottom:1px solid #bbb;padding:.3rem .6rem;text-align:left;vertical-align:top}"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body><main>"
        + "\n".join(parts)
        + "</main></body></html>\n"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


COLOURS = ("#0b5cad", "#b3400a", "#2a7d2e", "#7b3fa0", "#7a6200", "#a3174f", "#00707a")
WIDTH, HEIGHT, EDGE = 720, 280, 48


def loss_plot(results: Sequence[PolicyResult]) -> str:
    """An SVG with a line for each policy; the table beside it has the same numbers in sum."""
    points = {
        result.name: [(datetime.fromisoformat(at), y) for at, y in result.losses.items()]
        for result in results
    }
    every = [point for line in points.values() for point in line]
    if not every:
        return "<p>No outcome is known yet.</p>"
    first, last = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    span, height = max((last - first).total_seconds(), 1.0), max(high - low, 1e-9)

    def place(x: datetime, y: float) -> str:
        right = EDGE + (WIDTH - 2 * EDGE) * (x - first).total_seconds() / span
        return f"{right:.1f},{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (y - low) / height:.1f}"

    lines = []
    for number, (name, line) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        drawn = " ".join(place(x, y) for x, y in line)
        lines.append(f'<polyline fill="none" stroke="{colour}" points="{drawn}"/>')
        lines.append(f'<text x="{EDGE + 110 * number}" y="16" fill="{colour}">{html.escape(name)}</text>')
    labels = (
        f'<text x="2" y="{EDGE}" font-size="12">{high:.3f}</text>'
        f'<text x="2" y="{HEIGHT - EDGE}" font-size="12">{low:.3f}</text>'
        f'<text x="{EDGE}" y="{HEIGHT - 12}" font-size="12">{first:%Y-%m-%d}</text>'
        f'<text x="{WIDTH - 2 * EDGE}" y="{HEIGHT - 12}" font-size="12">{last:%Y-%m-%d}</text>'
    )
    return (
        f'<svg role="img" aria-label="log-loss by moment" viewBox="0 0 {WIDTH} {HEIGHT}" width="100%">'
        + "".join(lines)
        + labels
        + "</svg>"
    )
