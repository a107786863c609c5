"""The proposal for a table with a target: a row for each customer, or for each customer and period."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from churn.init import words
from churn.init.columns import Column, moments
from churn.init.conditions import one_of, quoted
from churn.init.duplicates import duplicates_of_table
from churn.init.expectations import of_table
from churn.init.features import features_of
from churn.init.identity import id_type
from churn.init.proposal import Proposal
from churn.init.sample.sample import Sample
from churn.init.target import Target, settle_target
from churn.init.times import settle_dates, settle_zone
from core.errors import DataError


def propose_labelled(
    sample: Sample,
    columns: Sequence[Column],
    customer: Column | None,
    time: Column | None,
    target: Target,
    proposal: Proposal,
) -> None:
    """Fill the proposal. `time` is the time column of a dated table, else None.

    Raises DataError for a target of one class, and for a table without features.
    """
    notes, source = proposal.notes, proposal.source
    target = settle_target(target, columns, notes)
    _refuse_one_class(target)
    source["columns"] = {"target": target.column.name}
    if customer is None:
        source["number_rows"] = True
        source["user_id_type"] = "integer"
        notes.found("customer", "the row's number", "no column identifies the rows")
    else:
        kind, why = id_type(customer)
        source["columns"] = {"user_id": customer.name, **source["columns"]}
        source["user_id_type"] = kind
        notes.found(
            "customer",
            customer.name,
            f"{customer.distinct:,} different values in {customer.rows:,} rows; {why}",
        )
    _values(source, target)
    if time is not None:
        dates = settle_dates(time, notes)
        source["columns"]["event_timestamp"] = time.name
        notes.found("time of a row", time.name, dates.why)
        settle_zone(source, time, dates, notes)
    else:
        _observed_at(sample, columns, target, proposal)
    duplicates_of_table(source, columns, customer, time, notes)
    taken = {*source["columns"].values(), target.column.name}
    features = features_of(columns, target, taken, sample.descriptions, sample.whole, notes)
    if not features:
        raise DataError(
            "no column is informative without revealing the target; give a table with more columns"
        )
    for feature in features:
        if feature.alias is not None:
            source.setdefault("computed", {})[feature.alias] = quoted(feature.column)
    if types := {f.alias or f.column: f.kind for f in features if f.kind}:
        source["types"] = types
    gaps = sorted({gap for column in columns for gap in column.gaps})
    if gaps:
        source["missing"] = gaps
        notes.found("missing values", ", ".join(map(repr, gaps)), "these words occur among numbers")
    proposal.features = [f.line for f in features]
    proposal.derived = []
    proposal.features_settings["eligible"] = None
    proposal.remarks["eligible"] = "all customers in the table"
    proposal.remarks |= {str(f.line["name"]): f.comment for f in features if f.comment}
    known = int(np.isfinite(target.churned).sum())
    proposal.expectations = of_table(columns, features, known)
    lost = float(target.column.texts.isna().mean())
    if customer is not None:
        lost = max(lost, 1 - customer.present)
    proposal.allow_rejected(lost, f"{lost:.1%} of the rows have no target or no customer")


def is_panel(customer: Column, time: Column) -> bool:
    """Whether each row is a customer and a period: customers repeat, at moments that they share."""
    pairs = pd.DataFrame({"who": customer.codes, "when": time.codes})
    repeated = float(pairs.duplicated().mean())
    return customer.unique < 0.9 and repeated < 0.02 and time.distinct < 0.2 * time.rows


def is_observation(time: Column) -> bool:
    """Whether the column is the moment at which a table with a row for each customer was made."""
    return time.present == 1 and (
        time.distinct == 1
        or (
            time.distinct <= 60
            and words.mentions(time.name, "snapshot* asof observ* stichtag* reporting* cutoff* period*")
        )
    )


def _refuse_one_class(target: Target) -> None:
    known = target.churned[np.isfinite(target.churned)]
    if known.sum() == 0 or known.sum() == len(known):
        raise DataError(
            f"{target.column.name}: a model needs rows with {', '.join(target.positive)} and rows with"
            " another value; name the value of customers who left with --answer positive=VALUE"
        )


def _values(source: dict[str, Any], target: Target) -> None:
    """Map the target. An expression combines several values of those who stayed into one, as ingest needs."""
    listed = {*target.positive, *target.ignore}
    stayed = [value for value in target.column.values if value not in listed]
    if len({_same_spelling(value) for value in stayed}) > 1:
        meaning = {"churned": target.positive, "stayed": stayed, "undecided": target.ignore}
        cases = " ".join(
            f"when {one_of(quoted(target.column.name), values)} then '{word}'"
            for word, values in meaning.items()
            if values
        )
        del source["columns"]["target"]
        source["computed"] = {"target": f"case {cases} end"}
        source["positive"] = "churned"
        if target.ignore:
            source["ignore"] = ["undecided"]
        return
    positive = [_plain(value, target.column) for value in target.positive]
    source["positive"] = positive[0] if len(positive) == 1 else positive
    if target.ignore:
        source["ignore"] = [_plain(value, target.column) for value in target.ignore]


def _same_spelling(value: str) -> str:
    return value.casefold().rstrip(".")


def _plain(value: str, column: Column) -> str | int:
    """A whole number as a number, every other value as a text."""
    return int(value) if column.numeric and value.isdigit() else value


def _observed_at(sample: Sample, columns: Sequence[Column], target: Target, proposal: Proposal) -> None:
    """When the table was observed: the day after its newest date, else the day when the file was changed."""
    notes = proposal.notes
    modified = sample.modified or datetime.now(UTC)
    day, why = _midnight(modified), "the table has no dates; the file was changed on this day"
    newest = []
    for column in columns:
        if column is target.column or column.dates is None or column.dates.ambiguous:
            continue
        if (
            words.mentions(column.name, words.REVEALS + " " + words.END_DATE + " expir* due next renew*")
            or column.numeric
        ):
            continue
        last = moments(column, column.dates).max()
        if not pd.isna(last) and last.to_pydatetime() < modified:
            newest.append((last.to_pydatetime(), column.name))
    if newest:
        last, name = max(newest)
        day, why = _midnight(last) + timedelta(days=1), f"the day after the newest date, of {name}"
    if answer := notes.answer("observed_at"):
        proposal.data["observed_at"] = answer if "T" in answer else f"{answer}T00:00:00Z"
        return
    proposal.data["observed_at"] = f"{day:%Y-%m-%dT%H:%M:%SZ}"
    notes.doubted("observed_at", f"{day:%Y-%m-%d}", f"when the rows were observed is not in the table; {why}")


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
