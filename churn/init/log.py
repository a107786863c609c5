"""The proposal for a log of purchases or events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from churn.init.belief import Notes
from churn.init.columns import Column, moments
from churn.init.conditions import status_filter
from churn.init.dates import Dates
from churn.init.duplicates import duplicates_of_log
from churn.init.expectations import of_log
from churn.init.horizon import Horizon, choose_horizon
from churn.init.identity import id_type
from churn.init.money import Money, decide_money, quantity_of
from churn.init.proposal import Proposal
from churn.init.roles import ranked_orders
from churn.init.times import settle_dates, settle_zone
from features.spec import FeaturesConfig


@dataclass(frozen=True)
class Roles:
    """The columns of a log by their meaning."""

    customer: Column
    time: Column
    dates: Dates
    """How `time` is written."""
    order: Column | None
    quantity: Column | None
    money: Money

    @property
    def columns(self) -> list[Column]:
        """All columns that ingest reads for a role."""
        taken = (self.customer, self.time, self.order, self.quantity, *self.money.reads)
        return [column for column in taken if column is not None]


def propose_log(
    columns: Sequence[Column], customer: Column, time: Column, spec: FeaturesConfig, proposal: Proposal
) -> None:
    """Fill the proposal. Raises DataError for a log that is too short, or in which all stay or all leave."""
    notes, source = proposal.notes, proposal.source
    kind, why = id_type(customer)
    notes.found("customer", customer.name, f"{_repeats(customer)}; {why}")
    roles = _roles(columns, customer, time, notes)
    where = status_filter(columns, roles.columns, bool(roles.money.reads), notes)
    _map(source, roles)
    source["user_id_type"] = kind
    if where:
        source["where"] = where
    _group(source, roles.order, notes)
    settle_zone(source, time, roles.dates, notes)
    precise = roles.dates.clock or roles.order is not None
    what = "time" if roles.order is None else "order"
    duplicates_of_log(source, columns, roles.columns, what if precise else None, notes)
    _returns(roles, notes)
    _unusable(proposal, roles)
    purchases = _purchases(roles)
    _horizon(proposal, choose_horizon(purchases["who"], purchases["day"]), notes)
    _features(proposal, spec, roles)
    amount = roles.money.column
    amounts = amount.numbers if amount is not None and not source.get("group_by") else None
    proposal.expectations = of_log(amounts, int(len(purchases) * (0.5 if where else 1)))


def _roles(columns: Sequence[Column], customer: Column, time: Column, notes: Notes) -> Roles:
    """The other columns, by answers or by names and values."""
    dates = settle_dates(time, notes)
    notes.found("time", time.name, dates.why)
    by_name = {column.name: column for column in columns}
    if (answer := notes.answer("quantity", (*by_name, "none"))) is not None:
        quantity = by_name.get(answer)
    else:
        quantity = quantity_of(columns, [customer, time])
    orders = ranked_orders(columns, customer, time)
    if (answer := notes.answer("order_id", (*by_name, "none"))) is not None:
        order = by_name.get(answer)
    else:
        order = orders[0].column if orders else None
    money = decide_money(columns, [customer, time, order], quantity, notes)
    if quantity is not None:
        notes.found("quantity", quantity.name, quantity.shown())
    return Roles(customer, time, dates, order, quantity, money)


def _map(source: dict[str, Any], roles: Roles) -> None:
    by_role = {
        "user_id": roles.customer,
        "timestamp": roles.time,
        "amount": roles.money.column,
        "quantity": roles.quantity,
        "order_id": roles.order,
    }
    source["columns"] = {role: column.name for role, column in by_role.items() if column is not None}
    if roles.money.expression is not None:
        source["computed"] = {"amount": roles.money.expression}


def _group(source: dict[str, Any], order: Column | None, notes: Notes) -> None:
    """Lines of an order are added up, except when each order has one line."""
    if order is None:
        return
    if order.unique > 0.9999:
        notes.found("order", order.name, "each row has its own")
        source["columns"]["transaction_id"] = source["columns"].pop("order_id")
        return
    source["group_by"] = "order_id"
    lines = order.texts.notna().sum() / order.distinct
    notes.found("order", order.name, f"{order.distinct:,} orders of {lines:.1f} lines, which are added up")


def _returns(roles: Roles, notes: Notes) -> None:
    """A finding when amounts or quantities are negative."""
    counted = [*roles.money.reads, *([roles.quantity] if roles.quantity is not None else [])]
    negative = np.zeros(roles.customer.rows, bool)
    for column in counted:
        negative |= column.numbers < 0
    if not negative.any():
        return
    why = f"{negative.mean():.1%} of the rows have a negative amount or quantity"
    if roles.order is not None and roles.order.stored_as_text:
        first = roles.order.texts.fillna("").str[:1]
        letters = first[negative][first[negative].str.isalpha()]
        if len(letters) > 0.9 * negative.sum():
            why += f"; their {roles.order.name} begins with {letters.mode().iloc[0]}"
    notes.found("returns", "no purchases", why)


def _unusable(proposal: Proposal, roles: Roles) -> None:
    """A higher bound for rejected rows if many rows have no customer, time or amount."""
    lost = roles.customer.texts.isna().to_numpy() | moments(roles.time, roles.dates).isna().to_numpy()
    for column in roles.money.reads:
        lost = lost | ~np.isfinite(column.numbers)
    share = float(lost.mean())
    if not proposal.allow_rejected(share, f"{share:.1%} of the sampled rows cannot be used"):
        return
    missing = float(roles.customer.texts.isna().mean())
    why = f"{share:.1%} of the rows"
    if missing > share / 2:
        why = f"{roles.customer.name} is missing in {missing:.1%}"
    proposal.notes.found("rejected rows", f"{share:.1%}", why)


def _purchases(roles: Roles) -> pd.DataFrame:
    """A purchase a row: `who`, `day` since 1970."""
    read = moments(roles.time, roles.dates)
    days = (read - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    frame = pd.DataFrame({"who": roles.customer.codes, "day": days.to_numpy(float)})
    if roles.order is not None:
        frame["order"] = roles.order.codes
    frame = frame[(frame["who"] >= 0) & frame["day"].notna()]
    return frame.drop_duplicates() if roles.order is not None else frame


def _horizon(proposal: Proposal, horizon: Horizon, notes: Notes) -> None:
    if horizon.as_shipped:
        notes.found("horizon", "90 days, the default", horizon.why)
        return
    proposal.features_settings["horizon_days"] = horizon.days
    proposal.remarks["horizon_days"] = horizon.why
    if horizon.every != "month":
        proposal.features_settings["snapshots"] = {"every": horizon.every}
    notes.found("horizon", f"{horizon.days} days, a snapshot each {horizon.every}", horizon.why)


def _features(proposal: Proposal, spec: FeaturesConfig, roles: Roles) -> None:
    """The features of configs/features.yaml, without those that need a column which the log does not have."""
    lacking = ["quantity"] if roles.quantity is None else []
    if roles.money.expression == "1":
        lacking.append("amount")
    omitted = [f.name for f in spec.features if not f.reading.columns.isdisjoint(lacking)]
    if not omitted:
        return
    proposal.features = [
        f.model_dump(mode="json", exclude_defaults=True) for f in spec.features if f.name not in omitted
    ]
    derived = [r for r in spec.derived if not {r.numerator, r.denominator} & set(omitted)]
    proposal.derived = [r.model_dump(mode="json", exclude_defaults=True) for r in derived]
    proposal.notes.found(
        "features", f"{', '.join(omitted)} left out", f"the log has no {' and no '.join(lacking)}"
    )


def _repeats(column: Column) -> str:
    rows_each = column.texts.notna().sum() / max(1, column.distinct)
    return f"{column.distinct:,} customers, {rows_each:.1f} rows each"
