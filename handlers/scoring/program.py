"""Calls the exported program so that the score of a customer does not depend on the rest of the batch."""

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
"""Rows of a call. With another number of rows, float32 matrix products use another kernel and round
differently: scores in batches of 1 to 65 rows differed by up to 2e-8. In calls of one size each position gave
the same bits."""
SMALLER = (16, 32)
"""Rows of calls that are quicker. They are used if they give the same bits as calls of CHUNK rows, which
generated rows can show: the kernel of a matrix product is chosen by the shape of its operands, not by their
values."""
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
        """Churn probabilities [rows]; the same bits for the same features in every batch.

        Raises KeyError for an absent column and ValueError for text in a numeric one, see `encode`.
        """
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
    """Pairs of a number of rows and the program for it, ascending up to CHUNK; all give the same bits.

    `numeric`: number of numeric inputs; `categories`: size of the vocabulary of each other input.
    """
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
    """The operations of the program, recorded to run without Python between them: a third of the time.

    Our networks have 50 to 250 small operations, and calling them one by one is most of the time of a call.
    The recording is used only if it gives the same bits as the program, for numbers of all sizes, missing
    values and all codes, also after the calls in which PyTorch still optimises it; otherwise `program` is
    returned.
    """
    examples = [_example(seed, numeric, categories, rows) for seed in range(EXAMPLES)]
    with warnings.catch_warnings():
        # torch.jit is deprecated, but part of the pinned version; no recording is stored in a file.
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
    """`rows`, filled up with rows of zeros to `size`."""
    if len(rows) < size:
        padded = np.zeros((size, rows.shape[1]), dtype=rows.dtype)
        padded[: len(rows)] = rows
        rows = padded
    return torch.from_numpy(rows)
