"""Customers to call: those for whom an offer is expected to bring most, with the reasons of their scores."""

from typing import Any

from pipelines.report.blocks import Cell, Section, Table, Text, number
from pipelines.report.facts import Facts
from pipelines.source_ids import COLUMN as SOURCE_ID


def section(facts: Facts) -> Section:
    found = facts.customers
    if found is None or not found.rows:
        return Section("customers", "Customers to call", [Text("No list was made for this page.")])
    named = SOURCE_ID in found.rows[0]
    rows = [
        [
            Cell(str(row["rank"]), is_number=True),
            *([Cell(str(row[SOURCE_ID] or "–"))] if named else []),
            Cell(str(row["user_id"])),
            number(row["churn_probability"], ".3f"),
            number(row["expected_value"], ",.2f"),
            Cell("; ".join(_reasons(row)) or "–"),
        ]
        for row in found.rows
    ]
    customer = ("customer", "masked") if named else ("customer (masked)",)
    columns = ("rank", *customer, "churn", "value of an offer", "reasons")
    text = (
        f"The {len(rows)} of {found.scored:,} customers for whom an offer is expected to bring most, by model"
        f" {found.model_version} on features of {found.as_of:%Y-%m-%d}. "
        + ("" if named else "Identifiers are masked; churn score --source-ids names them.")
    )
    return Section("customers", "Customers to call", [Text(text), Table("Customers", columns, rows)])


def _reasons(row: Any) -> list[str]:
    return [str(value) for name, value in sorted(row.items()) if name.startswith("reason_") and value]
