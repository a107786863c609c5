"""Scoring in bulk: the server's bits, however many rows a call has."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.served_bundle import SEGMENTS, ServedBundle

from handlers.bundle import Bundle, read_bundle
from handlers.scoring.program import CHUNK, Scorer
from serving.offline.bulk import BulkScorer


@pytest.fixture
def content(bundle: ServedBundle) -> Bundle:
    return read_bundle(bundle.model_dir)


def columns(rows: int, content: Bundle) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(rows)
    found: dict[str, NDArray[Any]] = {name: random.gamma(2, 20, rows) for name in content.numeric}
    for values in found.values():
        values[random.random(rows) < 0.1] = np.nan
    found["customer_segment"] = random.choice([*SEGMENTS, "unheard of", None], rows)
    return found


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 255, 4096, 9_001])
def test_a_score_has_the_bits_that_the_server_answers(rows: int, content: Bundle) -> None:
    asked = columns(rows, content)
    served = Scorer(content.program, content.numeric, content.vocabulary).score(asked)

    assert np.array_equal(BulkScorer(content).score(asked), served)


def test_calls_that_round_otherwise_are_not_used(content: Bundle) -> None:
    """As on a machine whose kernels for many rows add in another order."""
    asked = columns(9_001, content)
    served = Scorer(content.program, content.numeric, content.vocabulary).score(asked)
    scorer = BulkScorer(content)
    program = scorer._program

    def rounds_otherwise(numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        found = program(numbers, codes)
        return found if len(found) == CHUNK else torch.nextafter(found, torch.ones(()).double())

    scorer._program = rounds_otherwise  # type: ignore[assignment]
    assert np.array_equal(scorer.score(asked), served)
    assert scorer.sizes == ()


def test_a_call_that_rounds_otherwise_later_is_noticed(content: Bundle) -> None:
    asked = columns(3 * 4096, content)
    scorer = BulkScorer(content)
    served = scorer.score(asked)
    if not scorer.sizes:
        pytest.skip("this machine rounds differently in all larger calls")
    program = scorer._program
    scorer._program = lambda numbers, codes: (
        program(numbers, codes)
        * (  # type: ignore[assignment]
            1 if len(numbers) == CHUNK else 1 + 1e-15
        )
    )

    assert np.array_equal(scorer.score(asked), served)
