"""What each command takes besides the settings that all of them take."""

import argparse
from datetime import UTC, datetime
from pathlib import Path


def run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="do every step again, changed or not")
    parser.add_argument(
        "--no-rollout", action="store_true", help="end with a live server instead of a canary on trial"
    )


def init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="CSV, TSV, Parquet or Excel; a folder or pattern of files; any fsspec URI",
    )
    parser.add_argument("--out", type=Path, metavar="YAML", help="default: <name of FILE>.churn.yaml, here")
    parser.add_argument("--force", action="store_true", help="replace the YAML when it is there already")
    parser.add_argument("--yes", action="store_true", help="ask nothing: take the best guess of each doubt")
    parser.add_argument("--dry-run", action="store_true", help="print the YAML and write nothing")
    parser.add_argument(
        "--answer",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="settle a doubt or correct a belief, for example target=Exited or dates=day_first",
    )


def ingest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--append",
        metavar="URI",
        help="read only this new delivery, written like data.source, and merge it into the records",
    )


def deploy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="a .mar with its .sig; default: packaged last"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="its gate_report.json; default: the workspace's"
    )
    parser.add_argument(
        "--reason", default="passed its gates", help="why; recorded with your name (default: %(default)s)"
    )
    parser.add_argument("--store-only", action="store_true", help="to the store and no further")


def rollout_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--archive", type=Path, metavar="FILE", help="default: packaged last")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="its gate_report.json; default: the workspace's"
    )
    parser.add_argument("--reason", required=True, help="why; recorded with your name")


def rollout_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for machines")


def rollout_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", metavar="ID", help="of a rollout; default: the newest")
    parser.add_argument("--all", action="store_true", help="a line a rollout instead")
    parser.add_argument("--json", action="store_true", help="for machines, with all numbers and verdicts")


def rollout_judge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", metavar="ID", help="of a rollout; default: the newest")
    parser.add_argument("--json", action="store_true", help="for machines")


def adopt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--archive",
        type=Path,
        metavar="FILE",
        help="a copy of what is served, where it was not deployed by a rollout and cannot be read back",
    )
    parser.add_argument("--reason", required=True, help="why; recorded with your name")


def reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, help="why; recorded with your name")


def optional_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", default="", help="why; recorded with your name")


def tune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=_whole, metavar="N", help="finished trials the study ends with")
    parser.add_argument("--workers", type=_positive, metavar="K", help="processes that run trials")
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="start no trial after S seconds")
    parser.add_argument("--study", metavar="NAME", help="go on with this study, or begin it")


def dashboard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=_port, default=0, help="default: a free one, which is printed")


def as_of(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as-of",
        type=_moment,
        nargs="+",
        metavar="DATE",
        help="only these snapshots (ISO dates, UTC); default: all that the log allows",
    )


def predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user_id", nargs="+", help="identifiers as they stand in the source")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON, with their features")


def forget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user_id", nargs="+", help="identifiers as they stand in the source, or masked ones")
    parser.add_argument("--reason", required=True, help="why, for example the request's number; recorded")


def serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as-of",
        type=_moment,
        metavar="DATE",
        help="the server's clock starts here instead of now: features of an old log are then not stale",
    )
    parser.add_argument(
        "--no-gateway",
        action="store_true",
        help="TorchServe alone, on loopback, with its own token: where there is no Envoy",
    )


def key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="whose key it is")


def new_key(parser: argparse.ArgumentParser) -> None:
    key(parser)
    parser.add_argument("--expires", type=_days, metavar="DAYS", help="after so many days; default: never")
    parser.add_argument(
        "--scopes",
        type=lambda text: tuple(text.split(",")),
        default=("predict", "explain"),
        metavar="SCOPES",
        help="of predict (scores), explain (reasons too), variant (who answers); default: predict,explain",
    )
    parser.add_argument(
        "--requests-per-s", type=float, metavar="N", help="its own quota; default: gateway.requests_per_s"
    )


def rotated_key(parser: argparse.ArgumentParser) -> None:
    key(parser)
    parser.add_argument(
        "--overlap",
        type=_days,
        default=1.0,
        metavar="DAYS",
        help="how long the present key is good beside the new one (default: 1)",
    )


def score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as-of", type=_moment, metavar="DATE", help="ISO date, UTC; default: the newest snapshot"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="ends in .parquet or .csv; replaced"
    )
    parser.add_argument("--top", type=_positive, metavar="N", help="only the N most worthwhile customers")
    parser.add_argument(
        "--reasons",
        type=_whole,
        default=0,
        metavar="N",
        help="the N strongest reasons of each customer in words: slow, best with --top",
    )

    parser.add_argument(
        "--source-ids",
        action="store_true",
        help="add the identifiers of the source (needs the mask key; the file gets mode 600; it is recorded)",
    )


def verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a .mar with its .sig beside it")
    parser.add_argument("--sha256", metavar="DIGEST", help="refuse any other archive than this one")


def gates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="RULE",
        help="let a failed rule pass; needs --reason",
    )
    parser.add_argument("--reason", default="", help="why; recorded with your name")


def promote(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", nargs="?", help="number of the version; default: the challenger")
    parser.add_argument("--reason", required=True, help="why; recorded with your name")


def rollback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, help="why; recorded with your name")


def _whole(text: str) -> int:
    return _number(text, 0)


def _positive(text: str) -> int:
    return _number(text, 1)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 0 to 36500")
    return days


def _port(text: str) -> int:
    return _number(text, 0, 65535)


def _number(text: str, low: int, high: int | None = None) -> int:
    if not text.isdigit() or int(text) < low or (high is not None and int(text) > high):
        allowed = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {allowed}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an ISO date such as 1998-04-01") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
