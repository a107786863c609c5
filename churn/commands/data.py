"""`churn ingest` and `churn data ...`: from the source to records, and their versions."""

from argparse import Namespace

from churn import console
from churn.commands.step import append_delivery, read, run_step
from churn.settings import Settings


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


def versions(settings: Settings, arguments: Namespace) -> int:
    from data.records.versions import versions as known

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
            for version in known(settings.files)
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
