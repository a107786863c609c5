"""The exported program, asked so that a customer's score does not depend on who else is in the batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handlers.encoding import encode

CHUNK = 64
"""Rows of every call. float32 matrix products pick another kernel, and round otherwise, with another number
of rows: batches of 1 to 65 differed by up to 2e-8. In calls of one size every position gave the same bits."""


class Scorer:
    """Scores feature columns with the program of a bundle."""

    def __init__(self, file: Path, numeric: Sequence[str], vocabulary: Mapping[str, Sequence[str]]) -> None:
        self._program = torch.export.load(file).module()
        self._numeric = tuple(numeric)
        self._vocabulary = vocabulary

    def score(self, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """Churn probability a row; the same bits for the same features, whatever the batch."""
        numbers, codes = encode(columns, self._numeric, self._vocabulary)
        rows = len(numbers)
        padding = -rows % CHUNK
        padded_numbers = torch.from_numpy(np.pad(numbers, ((0, padding), (0, 0))))
        padded_codes = torch.from_numpy(np.pad(codes, ((0, padding), (0, 0))))
        with torch.inference_mode():
            chunks = [
                self._program(padded_numbers[start : start + CHUNK], padded_codes[start : start + CHUNK])
                for start in range(0, rows, CHUNK)
            ]
        return torch.cat(chunks).numpy()[:rows] if chunks else np.empty(0)
