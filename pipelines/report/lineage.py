"""Where the newest model and its data came from, by their digests."""

from pipelines.report.blocks import Cell, Section, Table
from pipelines.report.facts import Facts


def section(facts: Facts) -> Section:
    manifest = facts.manifest
    known = [
        ("source", manifest["source"]["uri"]),
        ("source sha256", manifest["input_sha256"]),
        ("data sha256", manifest["output_sha256"]),
        ("code", manifest["code_version"]),
    ]
    if facts.gates is not None:
        known.append(("program sha256", facts.gates["program_sha256"]))
    if facts.versions:
        tags = facts.versions[0].tags
        known += [
            (name.replace("_", " "), tags[name])
            for name in ("archive_sha256", "spec_digest", "gates_digest", "git_sha")
            if name in tags
        ]
    rows = [[Cell(name), Cell(str(value))] for name, value in known]
    return Section("lineage", "Where it came from", [Table("Digests", ("what", "value"), rows)])
