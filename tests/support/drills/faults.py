"""What is wrong with a canary: changes of a real archive's files.

The drills of one machine (test_drills.py) and of a cluster (test_prometheus_drills.py) put the same faults on
trial.
"""

from collections.abc import Mapping, Sequence

import httpx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from support.served_bundle import FRESH

Changes = Mapping[str, Sequence[tuple[str, str]]]
"""Name of a file of the archive -> what, by what."""

PREDICTOR, ANSWERING = "handlers/predictor.py", "handlers/answering.py"
HANDLER, SCORING = "churn_handler.py", "handlers/scoring/program.py"
ANSWERED = "    def _answer(self, request: Request, rows: Sequence[int], scored: Scored) -> Answer:\n"
SCORED = "                scores[start:stop] = chunk.numpy()[: stop - start]\n        return scores\n"
CALLED = "        answers = self.predictor.answer(rows, calls)\n"
BEGUN = "        torch.set_num_threads(1)"
READ = "vectors = self.features.read(ids, now)"


def _scored(instead: str) -> Changes:
    return {SCORING: [(SCORED, SCORED.replace("return scores", f"return {instead}"))]}


def fails(share: float) -> Changes:
    """Not the questions for readiness, or it would be taken back as not ready."""
    refuses = (
        f'        if request.user_ids[0] != "u_" + "0" * 32 and __import__("random").random() < {share}:\n'
        '            return refuse(Refusal(503, "made to fail", "internal", 1))\n'
    )
    return {ANSWERING: [(ANSWERED, ANSWERED + refuses)]}


FAILS = fails(0.02)
SLOW: Changes = {
    HANDLER: [
        (
            CALLED,
            '        if __import__("random").random() < 0.05:\n'
            '            __import__("time").sleep(1.5)\n' + CALLED,
        )
    ]
}
"""Its worker stops for 1.5 s at every twentieth batch."""
SHIFTED = _scored("scores * 0.6")
OLDER = READ.replace("now)", 'now + __import__("datetime").timedelta(days=40))')
STALE: Changes = {PREDICTOR: [(READ, OLDER)]}
MISCALIBRATED = _scored("scores**4")
"""Scores with the right order and the wrong level."""
NEVER_READY: Changes = {HANDLER: [(BEGUN, '        __import__("time").sleep(3600)\n' + BEGUN)]}
REFUSES_TO_LOAD: Changes = {HANDLER: [(BEGUN, '        raise ValueError("no")\n' + BEGUN)]}
KILLED: Changes = {}
"""An archive without a fault, whose process is killed."""


def scores_of(url: str) -> NDArray[np.float64]:
    """Stable's scores of the customers in the requests."""
    body = {"instances": [{"user_id": user} for user in FRESH]}
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        answers = client.post("/v1/models/churn:predict", json=body).json()
    return np.array([one["churn_probability"] for one in answers["predictions"]])


def outcomes_by(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Outcomes that churn with stable's scores as probabilities."""
    return np.random.default_rng(0).random(len(scores)) < scores


def label_table(user_ids: Sequence[str], when: object, churned: NDArray[np.bool_]) -> pd.DataFrame:
    return pd.DataFrame({"user_id": user_ids, "event_timestamp": when, "churned": churned})
