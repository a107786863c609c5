"""Recognises how numbers are written: decimal sign, thousands separator, currency, percent."""

import re
from collections.abc import Iterable

from churn.init.belief import Notes
from data.cell.notation import Notation

CURRENCY = re.compile(
    r"[$€£¥₹₽₺₩]|(?<![A-Za-z])(EUR|USD|GBP|CHF|JPY|SEK|NOK|DKK|PLN|CZK|Rs\.?|R\$|kr|zł|Fr\.?)(?![A-Za-z])"
)
BLANKS = " \u00a0\u202f"
_SIGN = r"[+-]?"
_US = re.compile(rf"^{_SIGN}\d{{1,3}}(,\d{{3}})+(\.\d+)?$")
_EURO = re.compile(rf"^{_SIGN}\d{{1,3}}(\.\d{{3}})+(,\d+)?$")
_BLANK = re.compile(rf"^{_SIGN}\d{{1,3}}([{BLANKS}]\d{{3}})+([.,]\d+)?$")
_SWISS = re.compile(rf"^{_SIGN}\d{{1,3}}(['’]\d{{3}})+([.,]\d+)?$")
_COMMA = re.compile(rf"^{_SIGN}\d*,\d+$")
_POINT = re.compile(rf"^{_SIGN}\d*\.\d+([eE][+-]?\d+)?$")
_WHOLE = re.compile(rf"^{_SIGN}\d+\.?$")


def find_notation(columns: Iterable[tuple[str, list[str]]], notes: Notes) -> Notation:
    """The notation of most distinct texts, in columns of which at least 80 % of the texts are numbers."""
    votes = {"us": 0, "euro": 0, "blank": 0, "swiss": 0, "comma": 0, "comma3": 0, "point": 0, "point3": 0}
    example: dict[str, str] = {}
    money = ""
    for name, values in columns:
        bare = [bared(value) for value in values]
        kinds = [_kind(text) for text in bare]
        numeric = [k for k in kinds if k]
        if not values or len(numeric) < 0.8 * len(values):
            continue
        if any(text != value for text, value in zip(bare, values, strict=True)) and any(
            CURRENCY.search(value) or value.startswith("(") for value in values
        ):
            money = (
                money or f"{name} contains {next(v for v in values if CURRENCY.search(v) or v[0] == '(')!r}"
            )
        for kind, value in zip(kinds, values, strict=True):
            if kind in votes:
                votes[kind] += 1
                example.setdefault(kind, f"{name} contains {value!r}")
    decimal = _decimal(votes, example, notes)
    thousands = _thousands(votes, decimal)
    if decimal != "." or thousands:
        evidence = (
            example.get("euro" if decimal == "," else "us") or example.get("blank") or example.get("swiss")
        )
        evidence = evidence or example.get("comma") or example.get("comma3", "")
        notes.found("numbers", _shown(decimal, thousands), evidence)
    if money:
        notes.found("currency", "left out of the numbers", money)
    return Notation(decimal, thousands, bool(money))


def bared(value: str) -> str:
    """The number without currency and percent sign, and with a minus instead of the brackets around it."""
    text = CURRENCY.sub("", value).strip(BLANKS)
    if text.startswith("(") and text.endswith(")"):
        text = "-" + text[1:-1].strip(BLANKS)
    text = re.sub(r"^-\s+", "-", text)
    if text.endswith("-") and text[:-1].strip():
        text = "-" + text[:-1]
    return text.removesuffix("%").strip(BLANKS)


def _kind(text: str) -> str:
    """The notation of a number: `whole` is the same in all; an empty string if the text is not a number."""
    if _WHOLE.match(text):
        return "whole"
    if _COMMA.match(text):
        return "comma3" if re.match(rf"^{_SIGN}[1-9]\d{{0,2}},\d{{3}}$", text) else "comma"
    if _POINT.match(text):
        return "point3" if re.match(rf"^{_SIGN}[1-9]\d{{0,2}}\.\d{{3}}$", text) else "point"
    for kind, pattern in (("us", _US), ("euro", _EURO), ("blank", _BLANK), ("swiss", _SWISS)):
        if pattern.match(text):
            return kind
    return ""


def _decimal(votes: dict[str, int], example: dict[str, str], notes: Notes) -> str:
    if answer := notes.answer("decimal", (".", ",")):
        return answer
    comma, point = votes["comma"] + votes["euro"], votes["point"] + votes["us"]
    if comma and not point:
        return ","
    if point and comma:
        chosen = "," if comma > point else "."
        why = (
            f"{example.get('comma') or example.get('euro')}, but {example.get('point') or example.get('us')}"
        )
        notes.doubted("decimal", chosen, why, (".", ","))
        return chosen
    if not point and votes["comma3"] and not votes["point3"]:
        notes.doubted(
            "decimal", ".", f"{example['comma3']}: grouped thousands, or a decimal comma", (".", ",")
        )
    return "."


def _thousands(votes: dict[str, int], decimal: str) -> str | None:
    if decimal == "," and (votes["euro"] or (votes["point3"] and not votes["point"])):
        return "."
    if decimal == "." and (votes["us"] or votes["comma3"]):
        return ","
    return " " if votes["blank"] else ("'" if votes["swiss"] else None)


def _shown(decimal: str, thousands: str | None) -> str:
    grouped = f"1{thousands}234" if thousands else "1234"
    return f"{grouped}{decimal}50"
