"""Parses numbers and money in the notations of people and spreadsheets."""

import re
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from data.cell.notation import MISSING_NUMBERS, Notation
from data.cell.text import is_number, matching, texts, without_numbers

PLAIN = Notation()
BLANK = r"[ \t\x{00A0}\x{2007}\x{2009}\x{202F}]"
"""Blanks, including non-breaking ones."""
QUOTE = "['\u2019]"
CODES = (
    "AED|ARS|AUD|BGN|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EGP|EUR|GBP|HKD|HUF|IDR|ILS|INR|ISK|JPY|KRW|KZT|MAD|MXN"
    "|MYR|NGN|NOK|NZD|PEN|PHP|PKR|PLN|RON|RSD|RUB|SAR|SEK|SGD|THB|TRY|TWD|UAH|USD|VND|ZAR"
    "|kr\\.?|zł|Kč|Ft|lei|лв\\.?|руб\\.?|Rs\\.?|Fr\\.?|Euro"
)
CURRENCY = rf"(?:[A-Z]{{0,3}}\p{{Sc}}|{CODES})"
SIGN = "[+\u2212-]"


def numeric_texts(column: pa.ChunkedArray, notation: Notation = PLAIN) -> pa.ChunkedArray:
    """The texts of a column of numbers, in which NA, NULL and similar words are also missing."""
    text = texts(column, notation.missing)
    if not pa.types.is_string(column.type):
        return text
    folded = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    return pc.if_else(pc.is_in(folded, pa.array(MISSING_NUMBERS)), None, text)


def numbers(column: pa.ChunkedArray, notation: Notation = PLAIN) -> pa.ChunkedArray:
    """Parse a column [rows] into float64 [rows]; null for unreadable cells, NaN and infinity."""
    if is_number(column.type):
        value = without_numbers(column, notation.missing).cast(pa.float64(), safe=False)
    else:
        value = plain_texts(texts(column, notation.missing), notation).cast(pa.float64())
    return pc.if_else(pc.is_finite(value), value, None)


def plain_texts(text: pa.ChunkedArray, notation: Notation) -> pa.ChunkedArray:
    """Rewrite `1.234,50 EUR` as `1234.50`; null for a text that is not a number in this notation."""
    text = pc.utf8_trim_whitespace(text)
    number = number_pattern(notation.decimal, notation.thousands, notation.currency)
    if notation.currency:
        text = _without_currency(text, number)
    elif (notation.decimal, notation.thousands) == (".", None):
        return matching(text, f"^[+-]?{number}$")
    text = matching(text, f"^{SIGN}?{number}$")
    if separators := _separators(notation.decimal, notation.thousands, notation.currency):
        text = pc.replace_substring_regex(text, "|".join(separators), "")
    if notation.decimal != ".":
        text = pc.replace_substring(text, notation.decimal, ".")
    return pc.replace_substring(text, "\u2212", "-")


@cache
def number_pattern(decimal: str, thousands: str | None, currency: bool) -> str:
    """The pattern of a number without a sign. Digits are grouped by threes, or as in India by twos before the
    last three. A date or an address with the same separators therefore does not match."""
    point = re.escape(decimal)
    plain = rf"(?:\d+(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"
    grouped = [
        rf"\d{{1,3}}(?:{s}\d{{3}})+(?:{point}\d*)?|\d{{1,2}}(?:{s}\d{{2}})+{s}\d{{3}}(?:{point}\d*)?"
        for s in _separators(decimal, thousands, currency)
    ]
    return "(?:" + "|".join([plain, *grouped]) + ")"


def _separators(decimal: str, thousands: str | None, currency: bool) -> list[str]:
    """Patterns of separators between groups of digits. Money without `thousands` accepts all of them."""
    if thousands is None:
        point = re.escape("," if decimal == "." else ".")
        return [point, BLANK, QUOTE] if currency else []
    if thousands in " \u00a0\u2007\u2009\u202f":
        return [BLANK]
    return [QUOTE] if thousands in "'\u2019" else [re.escape(thousands)]


def _without_currency(text: pa.ChunkedArray, number: str) -> pa.ChunkedArray:
    """The number without its currency. It is negative with a minus before or after it, or in brackets."""
    gap, sign = f"{BLANK}*", f"{SIGN}?"
    inner = rf"{sign}{gap}{CURRENCY}?{gap}{sign}{gap}({number}){gap}{CURRENCY}?{gap}{sign}{gap}{CURRENCY}?"
    whole = rf"^(?:{inner}|\({gap}{inner}{gap}\){gap}{CURRENCY}?|{CURRENCY}?{gap}\({gap}{inner}{gap}\))$"
    text = matching(text, whole)
    negative = pc.match_substring_regex(text, "[(\u2212]|^[^0-9]*-|-[^0-9]*$")
    digits = pc.replace_substring_regex(text, whole, r"\1\2\3")
    return pc.if_else(negative, pc.binary_join_element_wise("-", digits, ""), digits)
