"""Scores many customers at once, with the same bits as the server and several times faster.

The server calls the program with CHUNK rows (docs/adr/0003), and most of the time of such a call is overhead.
The shape of a call, not its values, determines the kernel of a matrix product and so the order of its
additions. A larger call therefore gives either all rows the bits of the small call, or wrong bits already in
the first rows. So larger calls are compared with small ones before they are used, on random rows and on the
first real rows, and one chunk of every larger call is computed again with a call of CHUNK rows.
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
"""Rows of a call, descending from the largest that an exported program accepts; multiples of CHUNK."""

Columns = Mapping[str, Sequence[Any] | NDArray[Any]]


class BulkScorer:
    """Scores columns of any length, with the same bits as `handlers.scoring.program.Scorer`."""

    def __init__(self, bundle: Bundle) -> None:
        torch.set_num_threads(
            1
        )  # as in a worker: more threads divide the rows differently, and so round differently
        self._bundle = bundle
        self._program = load_program(bundle.program)
        self._sizes = tuple(rows for rows in LARGER if self._agrees(*self._random_rows(rows)))
        self._calls = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of the larger calls in use, descending; empty when this machine rounds differently in all of
        them.
        """
        return self._sizes

    def score(self, columns: Columns) -> NDArray[np.float64]:
        """Churn probability of each row, shape (rows,). Raises what `encode` raises."""
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
        found = self._run(numbers, codes)
        repeated = self._calls % (len(numbers) // CHUNK) * CHUNK
        self._calls += 1
        part = slice(repeated, repeated + CHUNK)
        if not _same(found[part], self._chunk(numbers[part], codes[part])):
            self._sizes = ()
            return self._by_chunks(numbers, codes)
        return found

    def _agrees(self, numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> bool:
        return _same(self._run(numbers, codes), self._by_chunks(numbers, codes))

    def _by_chunks(self, numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
        chunks = range(0, len(numbers), CHUNK)
        return np.concatenate([self._chunk(numbers[i : i + CHUNK], codes[i : i + CHUNK]) for i in chunks])

    def _chunk(self, numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """The server's call: CHUNK rows, padded with zeros."""
        padding = ((0, CHUNK - len(numbers)), (0, 0))
        return self._run(np.pad(numbers, padding), np.pad(codes, padding))[: len(numbers)]

    def _run(self, numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
        with torch.inference_mode():
            answers = self._program(torch.from_numpy(numbers), torch.from_numpy(codes))
        return np.asarray(answers.numpy())

    def _random_rows(self, rows: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Numbers of each magnitude and sign, 10 % of them missing, and codes of all categories."""
        random = np.random.default_rng(0)
        shape = (rows, len(self._bundle.numeric))
        numbers = random.normal(size=shape) * 10.0 ** random.integers(-2, 5, size=shape)
        numbers[random.random(shape) < 0.1] = np.nan
        known = [len(values) for values in self._bundle.vocabulary.values()]
        codes = [random.integers(0, count + 1, rows) for count in known]
        return numbers, np.stack(codes, axis=1) if codes else np.zeros((rows, 0), np.int64)


def _same(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether the bits are equal; all NaN are equal."""
    return bool(np.array_equal(one, other, equal_nan=True))
