"""The work of every rival on a request: the same features and the same exported program as ours.

A rival gets MODEL_DIR, our own archive unpacked, and the environment that its feature_store.yaml needs.
READ selects the reader of the features: `feast` (`get_online_features`), or `reader`, our own reader as a
library. This separates the effect of the reader from that of the server. The request is ours: a raw
identifier, masked here as by our own server.

    python -m benchmarks.servers.recipe < IDS       # the scores of these customers, both as JSON lists
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch

from handlers.identity import pseudonym
from handlers.scoring.encoding import encode

Columns = Mapping[str, Sequence[Any]]
Read = Callable[[list[str]], Columns]
"""Columns of features of masked customers, a value a customer."""


class Recipe:
    """Reads and scores the way the documentation of Feast and of PyTorch shows it."""

    def __init__(self) -> None:
        model_dir = Path(os.environ["MODEL_DIR"])
        bundle = json.loads((model_dir / "bundle.json").read_text(encoding="utf-8"))
        self.threshold = float(bundle["threshold"])
        self.numeric: list[str] = bundle["numeric"]
        self.vocabulary: dict[str, list[str]] = bundle["vocabulary"]
        self._id_type: str = bundle["entity"]["id_type"]
        self._key = mask_key()
        by_reader = os.environ.get("READ") == "reader"
        self._read = our_reader(model_dir) if by_reader else feast_read(model_dir, bundle)
        torch.set_num_threads(1)  # as ours; more are slower at these sizes
        self._program = torch.export.load(model_dir / "model.pt2").module()

    def score(self, columns: Columns) -> list[float]:
        numbers, codes = encode(columns, self.numeric, self.vocabulary)
        with torch.inference_mode():
            scores: list[float] = self._program(torch.from_numpy(numbers), torch.from_numpy(codes)).tolist()
        return scores

    def answer(self, user_ids: Sequence[Any]) -> list[dict[str, Any]]:
        """A JSON object a customer, with probability and decision."""
        masked = [pseudonym(user_id, self._id_type, self._key) for user_id in user_ids]
        distinct = list(dict.fromkeys(masked))
        scores = dict(zip(distinct, self.score(self._read(distinct)), strict=True))
        return [
            answer(user_id, scores[name], self.threshold)
            for user_id, name in zip(user_ids, masked, strict=True)
        ]


def feast_read(model_dir: Path, bundle: Mapping[str, Any]) -> Read:
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(model_dir))
    service = store.get_feature_service(bundle["spec"]["service"])
    join_key = bundle["entity"]["join_key"]

    def read(ids: list[str]) -> Columns:
        rows = [{join_key: user_id} for user_id in ids]
        columns: Columns = store.get_online_features(features=service, entity_rows=rows).to_dict()
        return columns

    return read


def our_reader(model_dir: Path) -> Read:
    from handlers.bundle import read_bundle
    from handlers.store.opening import open_features

    features = open_features(model_dir, read_bundle(model_dir))
    offset = timedelta(seconds=float(os.environ["CHURN_CLOCK_OFFSET_S"]))

    def read(ids: list[str]) -> Columns:
        vectors = features.read(ids, datetime.now(UTC) + offset)
        if set(vectors.status) != {"ok"}:
            raise RuntimeError(f"not all features are fresh: {sorted(set(vectors.status))}")
        return vectors.columns

    return read


def answer(user_id: Any, score: float, threshold: float) -> dict[str, Any]:
    decision = "High Risk" if score > threshold else "Low Risk"
    return {"user_id": user_id, "churn_probability": score, "prediction": decision}


def mask_key() -> bytes:
    if file := os.environ.get("CHURN_MASK_KEY_FILE"):
        return Path(file).read_text(encoding="utf-8").strip().encode()
    return os.environ["CHURN_MASK_KEY"].strip().encode()


def port() -> int:
    return int(os.environ["PORT"])


if __name__ == "__main__":
    scored = Recipe().answer(json.load(sys.stdin))
    print(json.dumps([one["churn_probability"] for one in scored]))
