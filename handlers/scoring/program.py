"""The exported program, asked so that a customer's score does not depend on who else is in the batch."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handlers.scoring.encoding import Column, encode

CHUNK = 64
"""Rows of a call. float32 matrix products pick another kernel, and round otherwise, with another number
of rows: batches of 1 to 65 differed by up to 2e-8. In calls of one size every position gave the same bits."""
SMALLER = (16, 32)
"""Rows of calls that are quicker and serve as well where they give the bits of CHUNK's. Which kernel computes
a matrix product follows from the shape of the call and not from its values, so that made-up rows show it."""
EXAMPLES = 3

log = logging.getLogger("churn.handler")
Program = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Scorer:
    """Scores feature columns with the program of a bundle."""

    def __init__(
        self, file: Path, numeric: Sequence[str], vocabulary: Mapping[str, Sequence[str | None]]
    ) -> None:
        program = torch.export.load(file).module()
        self._numeric = tuple(numeric)
        self._vocabulary = vocabulary
        with torch.inference_mode():
            self._calls = calls(program, len(self._numeric), [len(v) for v in vocabulary.values()])

    def score(self, columns: Mapping[str, Column]) -> NDArray[np.float64]:
        """Churn probability a row; the same bits for the same features, whatever the batch."""
        numbers, codes = encode(columns, self._numeric, self._vocabulary)
        rows = len(numbers)
        scores = np.empty(rows)
        with torch.inference_mode():
            for start in range(0, rows, CHUNK):
                stop = min(start + CHUNK, rows)
                size, program = next(call for call in self._calls if stop - start <= call[0])
                chunk = program(_filled(numbers[start:stop], size), _filled(codes[start:stop], size))
                scores[start:stop] = chunk.numpy()[: stop - start]
        return scores


def calls(program: Program, numeric: int, categories: Sequence[int]) -> list[tuple[int, Program]]:
    """Rows of a call and the program to call with them, ascending up to CHUNK; all give the same bits."""
    traced = recorded(program, numeric, categories)
    examples = [_example(seed, numeric, categories) for seed in range(EXAMPLES)]
    expected = [traced(*one) for one in examples]
    found = []
    for rows in SMALLER:
        smaller = recorded(program, numeric, categories, rows)
        if all(
            _same_bits(
                torch.cat(
                    [smaller(numbers[at : at + rows], codes[at : at + rows]) for at in range(0, CHUNK, rows)]
                ),
                scores,
            )
            for (numbers, codes), scores in zip(examples, expected, strict=True)
        ):
            found.append((rows, smaller))
    return [*found, (CHUNK, traced)]


def recorded(program: Program, numeric: int, categories: Sequence[int], rows: int = CHUNK) -> Program:
    """The same operations recorded once, so that they run without Python between them: a third of the time.

    A network of ours is 50 to 250 small operations, and most of a call of the exported program goes into
    calling them one by one. The recording only serves if it gives the program's own bits, on numbers of all
    sizes, missing ones and every kind of code, also after the runs in which PyTorch still optimises it;
    otherwise `program` comes back.
    """
    examples = [_example(seed, numeric, categories, rows) for seed in range(EXAMPLES)]
    with warnings.catch_warnings():
        # torch.jit is deprecated, and stays in the pinned version; nothing of it is stored
        warnings.simplefilter("ignore")
        try:
            recording: Program = torch.jit.freeze(
                torch.jit.trace(program, examples[0], check_trace=False).eval()  # type: ignore[no-untyped-call]
            )
            same = all(_same_bits(recording(*one), program(*one)) for one in examples for _ in range(2))
        except (RuntimeError, AttributeError) as error:
            log.warning("the program cannot be recorded: %s; scoring without", type(error).__name__)
            return program
    if not same:
        log.warning("the recorded program gives other bits than the exported one; scoring without")
        return program
    return recording


def _example(
    seed: int, numeric: int, categories: Sequence[int], rows: int = CHUNK
) -> tuple[torch.Tensor, torch.Tensor]:
    draws = np.random.default_rng(seed)
    numbers = draws.normal(size=(rows, numeric)) * 10.0 ** draws.integers(-3, 7, (rows, numeric))
    numbers[draws.random((rows, numeric)) < 0.2] = np.nan
    codes = draws.integers(0, np.array(categories, dtype=np.int64) + 1, (rows, len(categories)))
    return torch.from_numpy(numbers), torch.from_numpy(codes)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.view(torch.int64), other.view(torch.int64))


def _filled(rows: NDArray[Any], size: int) -> torch.Tensor:
    """`rows` with rows of zeros below, up to `size`."""
    if len(rows) < size:
        padded = np.zeros((size, rows.shape[1]), dtype=rows.dtype)
        padded[: len(rows)] = rows
        rows = padded
    return torch.from_numpy(rows)
