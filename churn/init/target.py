"""Finds the column that shows who left, and its values that mean it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from churn.init import words
from churn.init.belief import Notes
from churn.init.columns import Column


@dataclass(frozen=True)
class Target:
    column: Column
    positive: tuple[str, ...]
    ignore: tuple[str, ...]
    strong: bool
    """Whether its name or its values are clearly about leaving."""

    @property
    def churned(self) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """1 or 0 per row; NaN if the value is missing or ignored."""
        texts = self.column.texts
        churned = texts.isin(self.positive).astype(float)
        return np.asarray(churned.mask(texts.isna() | texts.isin(self.ignore)), float)


@dataclass(frozen=True)
class _Candidate:
    column: Column
    points: float
    strong: bool


def find_target(columns: Sequence[Column], notes: Notes) -> Target | None:
    """The most likely target, without its values; None if no column can be the target."""
    by_name = {column.name: column for column in columns}
    if (answer := notes.answer("target", (*by_name, "none"))) is not None:
        if answer == "none":
            return None
        return Target(by_name[answer], (), (), True)
    ranked = sorted(
        (c for i, column in enumerate(columns) if (c := _candidate(column, i == len(columns) - 1))),
        key=lambda one: -one.points,
    )
    if not ranked or ranked[0].points < 2:
        return None
    best = ranked[0]
    return Target(best.column, (), (), best.strong)


def settle_target(target: Target, columns: Sequence[Column], notes: Notes) -> Target:
    """The target with its values, of a table that is labelled. Other likely columns make a doubt."""
    ranked = sorted(
        (c for i, column in enumerate(columns) if (c := _candidate(column, i == len(columns) - 1))),
        key=lambda one: -one.points,
    )
    column = target.column
    own = next((one for one in ranked if one.column is column), _Candidate(column, 0, False))
    rivals = [
        one.column.name
        for one in ranked
        if one.column is not column and one.points > own.points - 1 and not divides_alike(one.column, column)
    ]
    why = f"values {column.shown()}"
    if own.strong and not rivals:
        notes.found("target", column.name, why)
    else:
        reason = (
            "its name is no word for leaving that is known here" if not own.strong else "others look alike"
        )
        notes.doubted("target", column.name, f"{why}; {reason}", tuple([column.name, *rivals][:6]))
    positive, ignore = _positive(column, notes)
    return Target(column, positive, ignore, own.strong)


def _candidate(column: Column, last: bool) -> _Candidate | None:
    """The column with its points; None if it cannot be a target."""
    values = column.values
    if not 2 <= len(values) <= 8 or column.present < 0.5:
        return None
    strong_name = words.mentions(column.name, words.STRONG_TARGET)
    weak_name = words.mentions(column.name, words.WEAK_TARGET)
    against = words.mentions(column.name, words.NOT_TARGET)
    churned = [v for v in values if words.value_in(v, words.CHURNED) and not _negated(v)]
    stayed = [v for v in values if words.value_in(v, words.STAYED) or _negated(v)]
    in_words = bool(churned and (stayed or len(values) == 2))
    binary = len({_truth(v) for v in values}) == 2 and all(_truth(v) is not None for v in values)
    if len(values) > 2 and not in_words and not binary:
        return None
    points = 4.0 * strong_name + 1.5 * weak_name * (not strong_name) - 3 * against
    points += 3 * in_words + 1.5 * binary + 0.5 * last + 0.25 * (column.present == 1)
    return _Candidate(
        column, points, bool((strong_name and (in_words or binary)) or (in_words and not against))
    )


def _negated(value: str) -> bool:
    return bool(words.tokens(value)) and words.tokens(value)[0] in (
        "no",
        "not",
        "non",
        "nicht",
        "kein",
        "nie",
    )


def _truth(value: str) -> bool | None:
    word = value.strip().lower()
    return True if word in words.YES else False if word in words.NO else None


def divides_alike(a: Column, b: Column) -> bool:
    """Whether two columns divide the rows in the same way, as `Churn Label` and `Churn Value` do."""
    both = (a.codes >= 0) & (b.codes >= 0)
    pairs = {(int(x), int(y)) for x, y in zip(a.codes[both], b.codes[both], strict=True)}
    return len(pairs) <= min(a.distinct, b.distinct)


def _positive(column: Column, notes: Notes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The values of customers who left, and the values of customers who are undecided."""
    values = column.values
    if (answer := notes.answer("positive")) is not None:
        wanted = tuple(value for value in answer.split("|") if value)
        return wanted, _undecided(values, wanted)
    inverse = words.mentions(column.name, words.INVERSE) and not words.mentions(
        column.name, words.STRONG_TARGET + " in* un* non* not no"
    )
    churned = tuple(v for v in values if words.value_in(v, words.CHURNED) and not _negated(v))
    if churned:
        ignore = _undecided(values, churned)
        others = [v for v in values if v not in churned and v not in ignore]
        unclear = [v for v in others if not (words.value_in(v, words.STAYED) or _negated(v))]
        why = f"{_share(column, churned):.1%} of the rows"
        if len(values) > 2 and unclear and len(others) > len([v for v in others if v not in unclear]):
            why += f"; {', '.join(map(repr, unclear))} count as customers who stay"
            notes.doubted("positive", "|".join(churned), why, tuple(values))
        else:
            notes.found("means churned", ", ".join(churned), why)
        if ignore:
            notes.found("undecided", ", ".join(ignore), f"{_share(column, ignore):.1%} of the rows")
        return churned, ignore
    truths = {v: _truth(v) for v in values}
    if all(truth is not None for truth in truths.values()) and len(set(truths.values())) == 2:
        wanted = tuple(v for v in values if truths[v] is not inverse)
        why = f"{_share(column, wanted):.1%} of the rows"
        if inverse:
            notes.doubted("positive", "|".join(wanted), f"{column.name} names those who stay", tuple(values))
        else:
            notes.found("means churned", ", ".join(wanted), why)
        return wanted, ()
    rare = values[-1]
    why = f"its rarer value, {_share(column, (rare,)):.1%} of the rows; no value is a word for leaving"
    notes.doubted("positive", rare, why, tuple(values))
    return (rare,), ()


def _undecided(values: Sequence[str], positive: Sequence[str]) -> tuple[str, ...]:
    if len(values) <= 2:
        return ()
    rest = [v for v in values if v not in positive]
    ignored = tuple(v for v in rest if words.value_in(v, words.UNDECIDED))
    return ignored if len(ignored) < len(rest) else ()


def _share(column: Column, values: Sequence[str]) -> float:
    return float(column.texts.isin(values).sum() / max(1, column.texts.notna().sum()))
