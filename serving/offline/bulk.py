"""Many customers at once, with the very bits that the server would answer, several times faster.

The server asks the program for CHUNK rows a call (docs/adr/0003), and most of such a call is its overhead.
Which kernel computes a matrix product, and so in what order it adds, follows from the shape of the call and
not from its values: a larger call either gives every row the bits of the small one or shows on the first
rows that it does not. So larger calls are tried before they are used, on made-up rows and on the first
real ones, and one chunk of every call is asked again the server's way.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handlers.bundle import Bundle
from handlers.scoring.encoding import encode
from handlers.scoring.program import CHUNK
from model.export import load_program

LARGER = (4096, 1024, 256)
"""Rows of a call, the largest that an exported program takes first; each a multiple of CHUNK."""

Columns = Mapping[str, Sequence[Any] | NDArray[Any]]


class BulkScorer:
    """Scores columns of any length; `handlers.scoring.program.Scorer` gives the same bits."""

    def __init__(self, bundle: Bundle) -> None:
        torch.set_num_threads(1)  # as a worker does: more threads cut the rows elsewhere, and round elsewhere
        self._bundle = bundle
        self._program = load_program(bundle.program)
        self._sizes = tuple(rows for rows in LARGER if self._agrees(*self._made_up(rows)))
        self._calls = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """The calls in use, descending; empty where this machine rounds differently in all of them."""
        return self._sizes

    def score(self, columns: Columns) -> NDArray[np.float64]:
        """Churn probability a row. Raises what `encode` raises."""
        numbers, codes = encode(columns, self._bundle.numeric, self._bundle.vocabulary)
        scores = np.empty(len(numbers))
        start = 0
        while start < len(numbers):
            left = len(numbers) - start
            size = next((rows for rows in self._sizes if rows <= left), CHUNK)
            stop = min(start + size, len(numbers))
            scores[start:stop] = self._call(numbers[start:stop], codes[start:stop])
            start = stop
        return scores

    def _call(self, numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
        if len(numbers) <= CHUNK:
            return self._chunk(numbers, codes)
        if self._calls == 0 and not self._agrees(numbers, codes):
            self._sizes = ()
            return self._by_chunks(numbers, codes)
        found = self._ask(numbers, codes)
        asked_again = self._calls % (len(numbers) // CHUNK) * CHUNK
        self._calls += 1
        part = slice(asked_again, asked_again + CHUNK)
        if not _same(found[part], self._chunk(numbers[part], codes[part])):
            self._sizes = ()
            return self._by_chunks(numbers, codes)
        return found

    def _agrees(self, numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> bool:
        return _same(self._ask(numbers, codes), self._by_chunks(numbers, codes))

    def _by_chunks(self, numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
        chunks = range(0, len(numbers), CHUNK)
        return np.concatenate([self._chunk(numbers[i : i + CHUNK], codes[i : i + CHUNK]) for i in chunks])

    def _chunk(self, numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """The server's call: rows of zeros below, up to CHUNK."""
        padding = ((0, CHUNK - len(numbers)), (0, 0))
        return self._ask(np.pad(numbers, padding), np.pad(codes, padding))[: len(numbers)]

    def _ask(self, numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
        with torch.inference_mode():
            answers = self._program(torch.from_numpy(numbers), torch.from_numpy(codes))
        return np.asarray(answers.numpy())

    def _made_up(self, rows: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Rows of every size and sign, some of them missing, and every category."""
        random = np.random.default_rng(0)
        shape = (rows, len(self._bundle.numeric))
        numbers = random.normal(size=shape) * 10.0 ** random.integers(-2, 5, size=shape)
        numbers[random.random(shape) < 0.1] = np.nan
        known = [len(values) for values in self._bundle.vocabulary.values()]
        codes = [random.integers(0, count + 1, rows) for count in known]
        return numbers, np.stack(codes, axis=1) if codes else np.zeros((rows, 0), np.int64)


def _same(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """To the bit, but for which NaN it is."""
    return bool(np.array_equal(one, other, equal_nan=True))
