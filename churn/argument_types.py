"""Types of command-line arguments: each parses a text, or raises the error that argparse reports."""

from argparse import ArgumentTypeError
from datetime import UTC, datetime


def whole(text: str) -> int:
    """A whole number of 0 or more."""
    return _whole_number(text, 0)


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    return _whole_number(text, 1)


def port(text: str) -> int:
    return _whole_number(text, 0, 65535)


def days(text: str) -> float:
    """A number of days, at most a century."""
    number = _number(text)
    if number is None or not 0 <= number <= 36_500:
        raise ArgumentTypeError(f"{text!r} is not a number of days from 0 to 36500")
    return number


def seconds(text: str) -> float:
    number = _number(text)
    if number is None or not 0 < number < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return number


def moment(text: str) -> datetime:
    """An ISO date or time; in UTC when it has no offset."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not an ISO date such as 1998-04-01") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def part(text: str) -> tuple[int, int]:
    """I/N: the part I of N, counted from 0."""
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit() and int(number) < int(of)):
        raise ArgumentTypeError(f"{text!r} is not I/N with I from 0 to N-1, such as 0/4")
    return int(number), int(of)


def words(text: str) -> tuple[str, ...]:
    """Words that are separated by commas."""
    return tuple(text.split(","))


def _whole_number(text: str, low: int, high: int | None = None) -> int:
    if not text.isdigit() or int(text) < low or (high is not None and int(text) > high):
        allowed = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise ArgumentTypeError(f"{text!r} is not a whole number {allowed}")
    return int(text)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
