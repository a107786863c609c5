"""Bulk scoring gives the same bits as the server, for any number of rows in a call."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handlers.bundle import Bundle, read_bundle
from handlers.scoring.program import CHUNK, Scorer
from serving.offline.bulk import BulkScorer
from support.served_bundle import SEGMENTS, ServedBundle


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
def test_scores_have_the_same_bits_as_the_servers(rows: int, content: Bundle) -> None:
    inputs = columns(rows, content)
    served = Scorer(content.program, content.numeric, content.vocabulary).score(inputs)

    assert np.array_equal(BulkScorer(content).score(inputs), served)


def test_calls_that_round_differently_are_not_used(content: Bundle) -> None:
    """A machine may have kernels that add many rows in another order."""
    inputs = columns(9_001, content)
    served = Scorer(content.program, content.numeric, content.vocabulary).score(inputs)
    scorer = BulkScorer(content)
    program = scorer._program

    def rounds_differently(numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        found = program(numbers, codes)
        return found if len(found) == CHUNK else torch.nextafter(found, torch.ones(()).double())

    scorer._program = rounds_differently  # type: ignore[assignment]
    assert np.array_equal(scorer.score(inputs), served)
    assert scorer.sizes == ()


def test_a_later_call_that_rounds_differently_is_detected(content: Bundle) -> None:
    inputs = columns(3 * 4096, content)
    scorer = BulkScorer(content)
    served = scorer.score(inputs)
    if not scorer.sizes:
        pytest.skip("this machine rounds differently in all larger calls")
    program = scorer._program
    scorer._program = lambda numbers, codes: (
        program(numbers, codes)
        * (  # type: ignore[assignment]
            1 if len(numbers) == CHUNK else 1 + 1e-15
        )
    )

    assert np.array_equal(scorer.score(inputs), served)
