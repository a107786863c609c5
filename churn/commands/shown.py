"""Tables that several commands print, and the line of an error."""

from collections.abc import Sequence
from typing import Any

from churn import console
from core.errors import ChurnError


def explain(error: ChurnError) -> None:
    """Print the error as one line on stderr. Its details, if any, precede it as a table on stdout."""
    if error.table:
        columns = list(error.table[0])
        console.table("What failed", columns, [[row.get(c) for c in columns] for row in error.table])
    console.err.print(f"[bold red]churn:[/] {console.escape(str(error))}", soft_wrap=True)


def show_models(record: Any) -> None:
    from pipelines.report.run_page import model_rows

    metrics = {
        "log_loss": "log-loss",
        "auroc": "AUROC",
        "auprc": "AUPRC",
        "accuracy": "accuracy",
        "brier": "Brier",
        "ece": "ECE",
    }
    rows = [[row["name"].replace("_", " "), *(row[name] for name in metrics)] for row in model_rows(record)]
    title = f"On {record['metrics']['rows']:,.0f} test rows the network never saw"
    console.table(title, ("model", *metrics.values()), rows, emphasise_first=True)


def show_gates(report: Any) -> None:
    rows = [(v["rule"], "holds" if v["passed"] else "FAILS", v["reason"]) for v in report["verdicts"]]
    console.table(f"Gates, profile {report['profile']}", ("rule", "verdict", "why"), rows)


def show_answers(answers: Sequence[Any]) -> None:
    columns = ("user_id", "churn_probability", "prediction", "status", "model_version")
    rows = [
        [str(answer["user_id"]), *(answer.get(c, answer.get("error", "")) for c in columns[1:])]
        for answer in answers
    ]
    console.table("Answers of the server", [c.replace("_", " ") for c in columns], rows)


def show_rollout(record: Any) -> None:
    """Print the windows of the canary in order, one weight each."""
    if "left_out" in record:
        console.out.print(f"No canary: {console.escape(record['left_out'])}", soft_wrap=True)
        return
    columns = ("canary's share", "seconds", "stable", "canary", "errors", "p99 ms", "stable's")
    rows = [
        (
            window["name"],
            f"{window['seconds']:.1f}",
            f"{window['stable']['requests']:,}",
            f"{window['canary']['requests']:,}",
            f"{window['canary']['errors']:,}",
            *(
                "–" if window[variant]["p99_ms"] is None else f"{window[variant]['p99_ms']:.0f}"
                for variant in ("canary", "stable")
            ),
        )
        for window in record["windows"]
    ]
    ended = record["phase"].replace("_", " ")
    console.table(f"Canary {record['candidate']['version']}: {ended}", columns, rows)
    console.out.print(console.escape(record["outcome"]), soft_wrap=True)
