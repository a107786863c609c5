"""From a sample to a proposal: first the shape, then what the shape needs."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from churn.init import words
from churn.init.belief import Notes
from churn.init.columns import Column, profile
from churn.init.identity import find_id
from churn.init.labelled import is_observation, is_panel, propose_labelled
from churn.init.log import propose_log
from churn.init.proposal import Proposal
from churn.init.roles import Ranked, ranked_customers, ranked_times
from churn.init.sample.files import stem
from churn.init.sample.sample import Sample
from churn.init.sample.take import take_sample
from churn.init.target import Target, divides_alike, find_target
from core.errors import ConfigError, DataError
from features.spec import FeaturesConfig

SHAPES = ("transactions", "labelled")


def propose(uri: str, spec: FeaturesConfig, answers: Mapping[str, str]) -> Proposal:
    """Propose the overlay for the table at `uri`. `answers` decide doubts, by their keys.

    Raises DataError if there is no table, or if it does not show who left; ConfigError for an answer that is
    not one of the options, or has no question.
    """
    notes = Notes(dict(answers))
    sample = take_sample(uri, notes)
    columns, notation = profile(sample.table, notes)
    columns = [c for c in columns if c.distinct > 0 or not (c.name == "" or c.name.startswith("Unnamed:"))]
    if len(columns) < 2:
        raise DataError(
            f"{uri}: a table of one column is not enough; name its delimiter with --answer delimiter=SIGN"
        )
    source: dict[str, Any] = {"kind": sample.kind, "uri": sample.uri}
    if sample.sheet is not None:
        source["sheet"] = sample.sheet
    options = dict(sample.options)
    options |= {"decimal": notation.decimal} if notation.decimal != "." else {}
    options |= {"thousands": notation.thousands} if notation.thousands else {}
    if options:
        source["options"] = options
    if notation.currency:
        source["currency"] = True
    name = stem(uri)
    proposal = Proposal("labelled", name, source, notes, sample.looked_at)
    _propose_by_shape(sample, columns, spec, proposal)
    _refuse_unknown_answers(notes)
    return proposal


def _propose_by_shape(
    sample: Sample, columns: Sequence[Column], spec: FeaturesConfig, proposal: Proposal
) -> None:
    notes = proposal.notes
    times, target = ranked_times(columns), find_target(columns, notes)
    time = _answered(notes, "timestamp", columns) or (times[0].column if times else None)
    customers = ranked_customers(columns, time) if time is not None else []
    buyer = _answered(notes, "user_id", columns) or _repeating(customers)
    shape = notes.answer("shape", SHAPES)
    panel = target is not None and time is not None and buyer is not None and is_panel(buyer, time)
    if shape is None:
        shape = _shape(target, time, buyer, panel, columns, notes)
    if shape == "transactions":
        if time is None:
            raise DataError(
                "no column contains dates, so this is not a log; name one with --answer timestamp=COLUMN"
            )
        customer = buyer or (customers[0].column if customers else None)
        if customer is None:
            raise DataError("no column identifies customers; name one with --answer user_id=COLUMN")
        proposal.shape = "transactions"
        _rivals(customers, customer, "user_id", notes)
        _rivals(times, time, "timestamp", notes)
        propose_log(columns, customer, time, spec, proposal)
        return
    if target is None:
        raise DataError(
            "no column shows who left (two values, such as Churn: Yes, No), and it is not a log of purchases;"
            " name the target with --answer target=COLUMN"
        )
    if panel:
        propose_labelled(sample, columns, buyer, time, target, proposal)
        return
    observed = next((one.column for one in times if is_observation(one.column)), None)
    propose_labelled(sample, columns, find_id(columns, target.column, notes), observed, target, proposal)


def _shape(
    target: Target | None,
    time: Column | None,
    buyer: Column | None,
    panel: bool,
    columns: Sequence[Column],
    notes: Notes,
) -> str:
    log = time is not None and buyer is not None
    if panel and target is not None and (target.strong or not _has_money(columns)):
        notes.found(
            "shape",
            "labelled, dated",
            f"a row for each customer and {time.name if time else ''}, with a target",
        )
        return "labelled"
    strong = target is not None and target.strong
    if buyer is not None and strong and not _identifies_customers(buyer):
        log = False  # a column such as an age repeats too, and the target is clear
    identified = any(
        c.unique > 0.99 and c.present > 0.99 and words.mentions(c.name, words.CUSTOMER) for c in columns
    )
    if log and not identified:
        if target is not None and strong and not _is_status_of_order(target, buyer):
            why = f"customers repeat with dates; {target.column.name} is not used: the dates show who leaves"
            notes.doubted("shape", "transactions", why, SHAPES)
        else:
            notes.found("shape", "transactions", "customers repeat with dates, which show who leaves")
        return "transactions"
    if target is not None:
        notes.found("shape", "labelled", "a row for each customer, with a target")
        return "labelled"
    if time is not None and _has_money(columns):
        notes.found("shape", "transactions", "dates and amounts, no target")
        return "transactions"
    return "labelled"


def _identifies_customers(column: Column) -> bool:
    """By its name, or by texts with digits."""
    named = words.mentions(column.name, f"{words.CUSTOMER} {words.IDENTIFIER}")
    return named or (not column.numeric and all(any(c.isdigit() for c in v) for v in column.values[:50]))


def _is_status_of_order(target: Target, buyer: Column | None) -> bool:
    """Whether the value differs between rows of a customer: orders were cancelled, not the contract."""
    if buyer is None or words.mentions(target.column.name, "churn* *churn attrit*"):
        return False
    pairs = pd.DataFrame({"who": buyer.codes, "what": target.column.codes})
    rows = pairs.groupby("who").size()
    kinds = pairs.drop_duplicates().groupby("who").size()
    return bool((kinds[rows >= 4] > 1).mean() > 0.2) if (rows >= 4).any() else True


def _has_money(columns: Sequence[Column]) -> bool:
    return any(c.numeric and words.mentions(c.name, words.AMOUNT) for c in columns)


def _answered(notes: Notes, key: str, columns: Sequence[Column]) -> Column | None:
    by_name = {column.name: column for column in columns}
    options = (*by_name, "row number") if key == "user_id" else tuple(by_name)
    answer = notes.answer(key, options)
    return by_name.get(answer) if answer is not None else None


def _repeating(customers: Sequence[Ranked]) -> Column | None:
    """The best candidate whose values repeat; None if there is none."""
    for one in customers:
        if one.points >= 1.5 and one.column.unique < 0.9 and one.column.distinct >= 10:
            return one.column
    return None


def _rivals(ranked: Sequence[Ranked], chosen: Column, key: str, notes: Notes) -> None:
    """Record a doubt if another column is nearly as likely."""
    if key in notes.answers:
        return
    own = next((one.points for one in ranked if one.column is chosen), 0.0)
    near = [
        one.column.name
        for one in ranked
        if one.column is not chosen
        and one.points > own - 0.75
        and (one.column.unique < 0.9) == (chosen.unique < 0.9)
        and not divides_alike(one.column, chosen)
    ]
    if near:
        notes.doubted(
            key, chosen.name, f"{', '.join(near[:3])} may be meant as well", (chosen.name, *near[:5])
        )


def _refuse_unknown_answers(notes: Notes) -> None:
    questions = {
        *("shape", "encoding", "delimiter", "header", "decimal", "sheet", "user_id", "timestamp", "amount"),
        *("quantity", "order_id", "target", "positive", "dates", "timezone", "duplicates", "observed_at"),
        "left out rows",
    }
    if unknown := sorted(notes.answers.keys() - questions):
        raise ConfigError(
            f"--answer {unknown[0]}: no such question; choose one of {', '.join(sorted(questions))}"
        )
