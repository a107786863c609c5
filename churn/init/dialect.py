"""Recognises the dialect of a text file: encoding, delimiter, header, and lines that are not data."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from churn.init.belief import Notes
from churn.init.words import TOTALS, plain
from core.errors import DataError

DELIMITERS = (",", ";", "\t", "|", "^", "~", "\x01")
SPACES = r"\s+"
LOOKED_AT = 500
"""The number of records that are read to find delimiter and header."""
NUMERIC = re.compile(r"^[+-]?[\d.,' \u00a0\u202f]*\d[\d.,]*\s?%?$")
DATELIKE = re.compile(r"^\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?([T ].*)?$")
NAMES_OF_DELIMITERS = {"\t": "tab", SPACES: "blanks", "\x01": "control-A"}


@dataclass(frozen=True)
class Dialect:
    """The dialect, as parameters of `pandas.read_csv`."""

    encoding: str = "utf-8"
    delimiter: str = ","
    preamble: int = 0
    """Lines before the header."""
    header: bool = True
    descriptions: tuple[str, ...] = ()
    """A second header line, which describes the columns."""
    trailing: bool = False
    """Whether every line of data, but not the header, ends in a delimiter."""

    @property
    def skipped_lines(self) -> list[int]:
        """The numbers of the physical lines that are neither header nor data."""
        return [*range(self.preamble), *([self.preamble + 1] if self.descriptions else [])]


def find_encoding(content: bytes, notes: Notes) -> str:
    """The encoding of the first bytes of a file, which may end within a character."""
    if answer := notes.answer("encoding"):
        return answer
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            notes.found("encoding", name, "the file begins with a byte order mark")
            return name
    if b"\x00" in content[:4096] and content[:4096].count(b"\x00") > len(content[:4096]) // 4:
        name = "utf-16-le" if content[1:2] == b"\x00" else "utf-16-be"
        notes.found("encoding", name, "every second byte is zero")
        return name
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content)
        return "utf-8"
    except UnicodeDecodeError as error:
        place = error.start
    return _single_byte(content, place, notes)


def _single_byte(content: bytes, place: int, notes: Notes) -> str:
    """An encoding of one byte per character. Western letters are certain; another alphabet is a doubt."""
    why = f"not UTF-8 at byte {place:,}"
    high = re.findall(rb"[\x80-\xff]+", content)
    if sum(len(run) >= 3 for run in high) > len(high) / 3:
        notes.doubted("encoding", "cp1251", f"{why}; long runs of letters of another alphabet")
        return "cp1251"
    western = "äöüßÄÖÜéèêàâçîôûñíóúáÉåøæëïÑÅØÈÀÇ€£§°\xa0–—“”‘’™®²µ·¿¡«»".encode("cp1252")
    joined = b"".join(high)
    known = sum(joined.count(bytes([b])) for b in western)
    name = "cp1252" if any(0x80 <= b <= 0x9F for b in joined) else "latin-1"
    try:
        content.decode(name)
    except UnicodeDecodeError:
        name = "latin-1"
    if known >= 0.9 * len(joined):
        notes.found("encoding", name, f"{why}; its other bytes are Western letters")
    else:
        notes.doubted("encoding", name, f"{why}; its letters do not indicate an alphabet")
    return name


def find_dialect(text: str, encoding: str, notes: Notes) -> Dialect:
    """The dialect of the beginning of a file, whose last line may be incomplete.

    Raises DataError if there are fewer than two columns.
    """
    if text.lstrip()[:1] in ("{", "[") or text.lstrip().lower().startswith(("<html", "<!doctype", "<?xml")):
        raise DataError("this is JSON, HTML or XML, not a table of lines; save it as CSV or Parquet")
    delimiter, lines = _delimiter(text, notes)
    width = _width(lines)
    preamble = next(
        (i for i, cells in enumerate(lines) if len(cells) == width or len(_trimmed(cells)) == width), 0
    )
    if preamble == 0 and len(lines) > 1 and len(lines[0]) == width - 1:
        # each line of data ends in a delimiter
        trailing = sum(cells[-1] == "" for cells in lines[1:] if len(cells) == width)
        if trailing >= 0.99 * len(lines[1:]):
            notes.found("end of lines", "one more delimiter", "every line of data ends in a delimiter")
            return Dialect(encoding, delimiter, trailing=True)
    if (
        preamble
        and len(lines[preamble - 1]) == width - 1
        and all(c == "" for c in (r[-1] for r in lines[preamble:]))
    ):
        preamble -= 1
    body = lines[preamble:]
    if preamble:
        notes.found("header", f"line {preamble + 1}", f"{preamble} lines before it have fewer fields")
    header = _has_header(body, notes)
    descriptions = _descriptions(body) if header else ()
    if descriptions:
        notes.found(
            "second header line",
            "left out",
            f"it describes the columns, for example {descriptions[0]!r}, and the rows below contain values",
        )
    return Dialect(encoding, delimiter, _physical(text, preamble), header, descriptions)


def records(text: str, delimiter: str) -> list[list[str]]:
    """The records as cells, also those with quoted line breaks; without empty lines."""
    if delimiter == SPACES:
        return [line.split() for line in text.splitlines() if line.strip()]
    csv.field_size_limit(1 << 30)
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    found = []
    try:
        for row in rows:
            if any(cell.strip() for cell in row):
                found.append([cell.strip() for cell in row])
            if len(found) >= LOOKED_AT:
                break
    except csv.Error:
        pass
    return found


def footer_of(row: Sequence[str | None], filled: Sequence[float]) -> bool:
    """Whether the last row of a table is a total: by a word, or by gaps in otherwise filled columns."""
    cells = ["" if cell is None else cell for cell in row]
    if any(plain(cell.rstrip(":")) in TOTALS for cell in cells):
        return True
    filled_columns = [cell for cell, share in zip(cells, filled, strict=True) if share > 0.99]
    return len(filled_columns) >= 2 and sum(cell == "" for cell in filled_columns) > len(filled_columns) / 2


def _delimiter(text: str, notes: Notes) -> tuple[str, list[list[str]]]:
    if answer := notes.answer("delimiter"):
        answer = {"tab": "\t", "blanks": SPACES}.get(answer, answer)
        return answer, records(text, answer)
    scored = []
    for delimiter in DELIMITERS:
        lines = records(text, delimiter)
        width = _width(lines)
        if width < 2:
            continue
        regular = sum(len(cells) == width for cells in lines) / len(lines)
        head = next((cells for cells in lines if len(cells) in (width, width - 1)), [])
        named = len(head) >= width - 1 and not any(NUMERIC.match(cell) for cell in head)
        scored.append(((regular > 0.9) + named, regular * width, delimiter, lines))
    scored.sort(key=lambda one: (-one[0], -one[1]))
    if not scored or scored[0][0] == 0:
        lines = records(text, SPACES)
        width = _width(lines)
        if width >= 2 and sum(len(cells) == width for cells in lines) > 0.9 * len(lines):
            notes.found("delimiter", "blanks", f"{width} fields a line")
            return SPACES, lines
    if not scored:
        raise DataError("no delimiter divides its lines into two columns; give a table")
    _, _, delimiter, lines = scored[0]
    if delimiter != ",":
        shown = NAMES_OF_DELIMITERS.get(delimiter, delimiter)
        notes.found("delimiter", shown, f"{_width(lines)} fields a line")
    return delimiter, lines


def _width(lines: Sequence[Sequence[str]]) -> int:
    """The most frequent number of fields."""
    counts = Counter(len(cells) for cells in lines)
    return counts.most_common(1)[0][0] if counts else 0


def _trimmed(cells: list[str]) -> list[str]:
    while cells and cells[-1] == "":
        cells = cells[:-1]
    return cells


def _has_header(body: Sequence[Sequence[str]], notes: Notes) -> bool:
    """Whether the first line has no numbers or dates in columns where most other lines have them."""
    if (answer := notes.answer("header", ("yes", "no"))) is not None:
        return answer == "yes"
    head, rows = body[0], body[1:]
    valued = [i for i, cell in enumerate(head) if NUMERIC.match(cell) or DATELIKE.match(cell)]
    alike = [
        i
        for i in valued
        if rows
        and sum(bool(NUMERIC.match(r[i]) or DATELIKE.match(r[i])) for r in rows if i < len(r)) > len(rows) / 2
    ]
    if alike:
        notes.found("header", "none", f"the first line contains {head[alike[0]]!r}, like the lines below")
        return False
    return True


def _descriptions(body: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The second line, if it has words in columns where all lines below have numbers or dates."""
    if len(body) < 12:
        return ()
    line, rows = body[1], body[2:]
    valued, words = 0, 0
    for i, cell in enumerate(line):
        below = [r[i] for r in rows if i < len(r) and r[i]]
        if below and sum(bool(NUMERIC.match(c) or DATELIKE.match(c)) for c in below) > 0.95 * len(below):
            valued += 1
            words += bool(re.search(r"[^\W\d_]{2}", cell)) and not DATELIKE.match(cell)
    return tuple(line) if valued and words >= max(1, 0.8 * valued) and words + 1 >= valued else ()


def _physical(text: str, preamble: int) -> int:
    """The number of physical lines before the header: `preamble` records, and empty lines among them."""
    if preamble == 0:
        return 0
    seen = 0
    for number, line in enumerate(text.splitlines()):
        if line.strip(" \t,;|"):
            if seen == preamble:
                return number
            seen += 1
    return preamble
