"""`churn ingest` and `churn data ...`: from the source to records, and their versions."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from churn import console
from churn.command import argument, command
from churn.commands.step import append_delivery, read, run_step

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "ingest",
    "read the source, validate, mask, write records and a manifest",
    examples=(
        "churn ingest",
        "churn ingest --config examples/transactions.yaml --set data.source.uri=orders.csv",
        "churn ingest --config examples/transactions.yaml --append orders-2024-06.csv",
    ),
    arguments=(
        argument(
            "--append",
            metavar="URI",
            help="read only this new delivery, written like data.source, and merge it into the records",
        ),
    ),
)
def ingest(settings: Settings, arguments: Namespace) -> int:
    if arguments.append is not None:
        return _append(settings, arguments.append)
    run_step(settings, "ingest")
    manifest = read(settings.files.manifest)
    counted = ("rows", "source_rows", "left_out_rows", "rejected_rows", "duplicate_rows", "customers")
    facts = {key: manifest[key] for key in (*counted, "output_sha256")}
    window = manifest["window"]
    console.pairs("Records", {**facts, "window": f"{window['start']} to {window['end']}"})
    console.out.print(f"Manifest: {settings.files.manifest}\nNext: [bold]churn features build[/]")
    return 0


@command(
    "data versions",
    "the versions of the records that are in the workspace, the current one first",
    examples=("churn data versions",),
)
def versions(settings: Settings, arguments: Namespace) -> int:
    from data.records.versions import versions as stored_versions

    console.table(
        f"Versions of the records (the newest {settings.data.keep_versions} stay: data.keep_versions)",
        ("version", "rows", "deliveries", "from", "to", "made", ""),
        [
            (
                version.sha256[:12],
                version.manifest["rows"],
                len(version.manifest["deliveries"]),
                *(version.manifest["window"][edge][:10] for edge in ("start", "end")),
                version.made.isoformat(timespec="seconds"),
                "current" if version.current else "",
            )
            for version in stored_versions(settings.files)
        ],
    )
    return 0


def _append(settings: Settings, uri: str) -> int:
    delivery = append_delivery(settings, uri)
    if delivery.known:
        console.out.print(f"{delivery.uri} was appended before; nothing has changed")
        return 0
    shown = ("rows", "new", "repeated", "changed", "late", "rejected", "compacted")
    console.pairs(f"Delivery {delivery.uri}", {key: getattr(delivery, key) for key in shown})
    console.out.print(f"Manifest: {settings.files.manifest}\nNext: [bold]churn features build[/]")
    return 0
