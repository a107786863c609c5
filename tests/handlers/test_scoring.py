"""Scores have the bits of the exported program, in recordings and in calls of any size."""

import logging

import numpy as np
import pytest
import torch

from handlers.scoring.program import CHUNK, Scorer, calls, recorded
from support.served_bundle import SEGMENTS, SPEC, ServedBundle


def test_scores_are_the_exported_programs_to_the_bit(bundle: ServedBundle) -> None:
    file = bundle.model_dir / "model.pt2"
    scorer = Scorer(file, SPEC.numeric, {"customer_segment": SEGMENTS})
    exported = torch.export.load(file).module()
    draws = np.random.default_rng(11)
    rows = 3 * CHUNK
    numbers = np.where(draws.random((rows, len(SPEC.numeric))) < 0.3, np.nan, draws.gamma(1, 50, (rows, 4)))
    codes = draws.integers(0, 3, (rows, 1))
    columns = {name: numbers[:, at] for at, name in enumerate(SPEC.numeric)}
    columns["customer_segment"] = np.array([None, *SEGMENTS], dtype=object)[codes[:, 0]]
    with torch.inference_mode():
        expected = [
            exported(torch.from_numpy(numbers[at : at + CHUNK]), torch.from_numpy(codes[at : at + CHUNK]))
            for at in range(0, rows, CHUNK)
        ]
    np.testing.assert_array_equal(scorer.score(columns), torch.cat(expected).numpy())
    for size in (1, 63, 65, 100):
        part = {name: column[:size] for name, column in columns.items()}
        np.testing.assert_array_equal(scorer.score(part), torch.cat(expected).numpy()[:size])


def test_a_recording_with_other_bits_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    class Undecided(torch.nn.Module):
        def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            # A recording always takes the branch of its first call.
            return numbers.nansum(1) if float(numbers.nansum()) > 0 else numbers.nansum(1) * 2

    undecided = Undecided()
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        assert recorded(undecided, 4, [2]) is undecided
    assert "gives other bits" in caplog.text


def test_a_program_that_cannot_be_recorded_is_used_itself(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(torch.nn.Module):
        def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            if torch.jit.is_tracing():
                raise RuntimeError("not while tracing")
            return numbers.nansum(1)

    refusing = Refusing()
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        assert recorded(refusing, 4, [2]) is refusing
    assert "cannot be recorded" in caplog.text


def test_smaller_calls_are_used_only_if_they_give_the_same_bits() -> None:
    class Rounding(torch.nn.Module):
        """Rounds differently in calls with few rows, as matrix products may."""

        def __init__(self, below: int) -> None:
            super().__init__()
            self.below = below

        def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            sums = numbers.nan_to_num().tanh().sum(1)
            return sums * 3 / 3 + (1e-16 * sums if len(numbers) < self.below else 0) + 1e-3

    def sizes(program: torch.nn.Module) -> list[int]:
        with torch.inference_mode():
            return [rows for rows, _ in calls(program, 4, [2])]

    assert sizes(Rounding(0)) == [16, 32, CHUNK]
    assert sizes(Rounding(17)) == [32, CHUNK]
    assert sizes(Rounding(33)) == [CHUNK]
