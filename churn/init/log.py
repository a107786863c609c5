"""The proposal for a log of purchases or events."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from churn.init import words
from churn.init.belief import Notes
from churn.init.columns import Column, moments
from churn.init.dates import Dates, spelled
from churn.init.expectations import of_log
from churn.init.horizon import Horizon, choose_horizon
from churn.init.identity import equal_rows, id_type
from churn.init.proposal import Proposal
from churn.init.roles import (
    Money,
    Ranked,
    decide_money,
    quantity_of,
    ranked_customers,
    ranked_orders,
    status_filter,
)
from churn.init.sample import Sample
from features.spec import FeaturesConfig


def propose_log(
    sample: Sample,
    columns: Sequence[Column],
    customer: Column,
    time: Column,
    spec: FeaturesConfig,
    proposal: Proposal,
) -> None:
    """Fills the proposal. Raises DataError for a log that no model can learn from."""
    notes, source = proposal.notes, proposal.source
    kind, why = id_type(customer)
    notes.found("customer", customer.name, f"{_repeats(customer)}; {why}")
    dates = settle_dates(time, notes)
    notes.found("time", time.name, dates.why)
    quantity = _quantity(columns, customer, time, notes)
    orders = ranked_orders(columns, customer, time)
    order = _order(orders, columns, notes)
    money = decide_money(columns, [customer, time, order], quantity, notes)
    if quantity is not None:
        notes.found("quantity", quantity.name, quantity.shown())
    where = status_filter(columns, [customer, time, order, quantity, *money.reads], bool(money.reads), notes)
    _map(source, customer, time, money, quantity, order)
    source["user_id_type"] = kind
    if where:
        source["where"] = where
    _group(source, order, columns, customer, time, notes)
    settle_zone(source, time, dates, notes)
    _duplicates(source, columns, dates, order, [customer, time, order, quantity, *money.reads], notes)
    _returns(sample, money, quantity, order, notes)
    _unusable(proposal, customer, time, money, dates)
    counted = _counted(sample, columns, customer, time, dates, order)
    horizon = choose_horizon(counted["who"], counted["day"])
    _horizon(proposal, horizon, notes)
    _features(proposal, spec, money, quantity)
    amounts = money.column.numbers if money.column is not None and not source.get("group_by") else None
    proposal.expectations = of_log(amounts, int(len(counted) * (0.5 if where else 1)))


def settle_dates(column: Column, notes: Notes, key: str = "dates") -> Dates:
    """The spelling of the column's moments; an ambiguous order of day and month becomes a doubt."""
    dates = column.dates
    assert dates is not None
    if answer := notes.answer(key):
        notes.found("dates", answer, "your answer")
        return Dates(
            spelled(answer, column.values) if dates.ambiguous else answer,
            "your answer",
            dates.clock,
            dates.zoned,
        )
    if not dates.ambiguous:
        return dates
    order, why = _likelier_order(column, dates)
    notes.doubted(key, order, why, ("day_first", "month_first"))
    return Dates(spelled(order, column.values), why, dates.clock, dates.zoned)


def _likelier_order(column: Column, dates: Dates) -> tuple[str, str]:
    """A log is mostly sorted, and ends on any day: the reading under which the rows ascend more often."""
    ascending = {}
    for order in ("day_first", "month_first"):
        read = moments(column, Dates(order, "", dates.clock)).dropna()
        steps = read.diff().dropna()
        ascending[order] = float((steps >= pd.Timedelta(0)).mean()) if len(steps) else 0.0
    best = max(ascending, key=lambda order: ascending[order])
    why = f"{column.values[0]} can be read both ways"
    if abs(ascending["day_first"] - ascending["month_first"]) > 0.02:
        return best, f"{why}; the rows ascend more often as {best} ({ascending[best]:.0%})"
    return "month_first", f"{why}; nothing in the file decides"


def settle_zone(source: dict[str, Any], time: Column, dates: Dates, notes: Notes) -> None:
    """Times of day without a zone are a doubt; days are not."""
    if dates.dates != "iso" or time.numeric:
        source["dates"] = dates.dates
    if answer := notes.answer("timezone"):
        source["timezone"] = answer
        notes.found("time zone", answer, "your answer")
    elif dates.clock and not dates.zoned:
        source["timezone"] = "UTC"
        notes.doubted("timezone", "UTC", f"{time.name} has times of day without a zone", ())


def _quantity(columns: Sequence[Column], customer: Column, time: Column, notes: Notes) -> Column | None:
    by_name = {column.name: column for column in columns}
    if (answer := notes.answer("quantity", (*by_name, "none"))) is not None:
        return by_name.get(answer)
    return quantity_of(columns, [customer, time])


def _order(orders: Sequence[Ranked], columns: Sequence[Column], notes: Notes) -> Column | None:
    by_name = {column.name: column for column in columns}
    if (answer := notes.answer("order_id", (*by_name, "none"))) is not None:
        return by_name.get(answer)
    return orders[0].column if orders else None


def _map(
    source: dict[str, Any],
    customer: Column,
    time: Column,
    money: Money,
    quantity: Column | None,
    order: Column | None,
) -> None:
    mapped = {"user_id": customer.name, "timestamp": time.name}
    if money.column is not None:
        mapped["amount"] = money.column.name
    if quantity is not None:
        mapped["quantity"] = quantity.name
    if order is not None:
        mapped["order_id"] = order.name
    source["columns"] = mapped
    if money.expression is not None:
        source["computed"] = {"amount": money.expression}


def _group(
    source: dict[str, Any],
    order: Column | None,
    columns: Sequence[Column],
    customer: Column,
    time: Column,
    notes: Notes,
) -> None:
    if order is None:
        return
    if order.unique > 0.9999:
        notes.found("order", order.name, "each row has its own")
        source["columns"]["transaction_id"] = source["columns"].pop("order_id")
        return
    source["group_by"] = "order_id"
    lines = order.texts.notna().sum() / order.distinct
    notes.found("order", order.name, f"{order.distinct:,} orders of {lines:.1f} lines, which are added up")


def _duplicates(
    source: dict[str, Any],
    columns: Sequence[Column],
    dates: Dates,
    order: Column | None,
    mapped: Sequence[Column | None],
    notes: Notes,
) -> None:
    """Copies of a row, or purchases that happen to be alike?"""
    if (answer := notes.answer("duplicates", ("drop", "keep", "refuse"))) is not None:
        source["duplicates"] = answer
        return
    whole = equal_rows(columns)
    alike = equal_rows([column for column in mapped if column is not None])
    rows = columns[0].rows
    precise = dates.clock or order is not None
    if whole and precise:
        what = "time" if order is None else "order"
        why = f"{whole:,} of {rows:,} rows equal a row above in every column, {what} included"
        notes.doubted("duplicates", "drop", why, ("drop", "keep"))
        source["duplicates"] = "drop"
        if alike > whole:
            source["keep"] = _distinguishing_columns(columns, mapped, whole)
    elif whole:
        why = f"{whole:,} of {rows:,} rows equal a row above; without times two purchases may be alike"
        notes.doubted("duplicates", "keep", why, ("keep", "drop"))
        source["duplicates"] = "keep"
    elif alike or not precise:
        source["duplicates"] = "keep"
        notes.found("duplicates", "keep", "no row is a copy in every column")
    else:
        source["duplicates"] = "drop"
        notes.found("duplicates", "drop", "no row is a copy today; one of a later delivery is set aside")


def _distinguishing_columns(
    columns: Sequence[Column], mapped: Sequence[Column | None], copies: int
) -> list[str]:
    """The fewest further columns with which only true copies are equal, products first."""
    chosen = [column for column in mapped if column is not None]
    rest = [column for column in columns if not any(column is one for one in chosen)]
    rest.sort(key=lambda column: (not words.mentions(column.name, words.PRODUCT), -column.distinct))
    names: list[str] = []
    for column in rest:
        if equal_rows(chosen) <= copies:
            break
        chosen.append(column)
        names.append(column.name)
    return names


def _returns(
    sample: Sample, money: Money, quantity: Column | None, order: Column | None, notes: Notes
) -> None:
    negative = np.zeros(sample.table.num_rows, bool)
    for column in {c.name: c for c in [*money.reads, *([quantity] if quantity is not None else [])]}.values():
        negative |= column.numbers < 0
    if not negative.any():
        return
    why = f"{negative.mean():.1%} of the rows have a negative amount or quantity"
    if order is not None and order.stored_as_text:
        first = order.texts.fillna("").str[:1]
        letters = first[negative][first[negative].str.isalpha()]
        if len(letters) > 0.9 * negative.sum():
            why += f"; their {order.name} begins with {letters.mode().iloc[0]}"
    notes.found("returns", "no purchases", why)


def _unusable(proposal: Proposal, customer: Column, time: Column, money: Money, dates: Dates) -> None:
    """Rows without a customer, time or amount are set aside; a file full of them needs a higher bound."""
    lost = customer.texts.isna().to_numpy() | moments(time, dates).isna().to_numpy()
    for column in money.reads:
        lost = lost | ~np.isfinite(column.numbers)
    share = float(lost.mean())
    if share > 0.005:
        proposal.data["max_rejected_share"] = round(min(0.95, share * 1.4 + 0.02), 2)
        proposal.remarks["max_rejected_share"] = f"{share:.1%} of the rows looked at cannot be used"
        missing = float(customer.texts.isna().mean())
        why = (
            f"{customer.name} is missing in {missing:.1%}"
            if missing > share / 2
            else f"{share:.1%} of the rows"
        )
        proposal.notes.found("rows set aside", f"{share:.1%}", why)


def _counted(
    sample: Sample,
    columns: Sequence[Column],
    customer: Column,
    time: Column,
    dates: Dates,
    order: Column | None,
) -> pd.DataFrame:
    """A purchase a row: `who`, `day` since 1970."""
    read = moments(time, dates)
    days = (read - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    frame = pd.DataFrame({"who": customer.codes, "day": days.to_numpy(float)})
    if order is not None:
        frame["order"] = order.codes
    frame = frame[(frame["who"] >= 0) & frame["day"].notna()]
    return frame.drop_duplicates() if order is not None else frame


def _horizon(proposal: Proposal, horizon: Horizon, notes: Notes) -> None:
    if horizon.as_shipped:
        notes.found("horizon", "90 days, the default", horizon.why)
        return
    proposal.features_settings["horizon_days"] = horizon.days
    proposal.remarks["horizon_days"] = horizon.why
    if horizon.every != "month":
        proposal.features_settings["snapshots"] = {"every": horizon.every}
    notes.found("horizon", f"{horizon.days} days, a snapshot each {horizon.every}", horizon.why)


def _features(proposal: Proposal, spec: FeaturesConfig, money: Money, quantity: Column | None) -> None:
    """The default ones, without those that need a column which the log lacks."""
    lacking = ["quantity"] if quantity is None else []
    if money.expression == "1":
        lacking.append("amount")
    gone = [f.name for f in spec.features if not f.reading.columns.isdisjoint(lacking)]
    if not gone:
        return
    proposal.features = [
        f.model_dump(mode="json", exclude_defaults=True) for f in spec.features if f.name not in gone
    ]
    derived = [r for r in spec.derived if not {r.numerator, r.denominator} & set(gone)]
    proposal.derived = [r.model_dump(mode="json", exclude_defaults=True) for r in derived]
    proposal.notes.found(
        "features", f"{', '.join(gone)} left out", f"the log has no {' and no '.join(lacking)}"
    )


def _repeats(column: Column) -> str:
    return (
        f"{column.distinct:,} customers, {column.texts.notna().sum() / max(1, column.distinct):.1f} rows each"
    )


def ranked_for_log(columns: Sequence[Column], time: Column) -> list[Ranked]:
    """Candidates for the customer, without columns that only look like ones."""
    return [
        one
        for one in ranked_customers(columns, time)
        if not words.mentions(one.column.name, words.STRONG_TARGET)
    ]
