"""What every rival does with a request: the same features from Feast and the same exported program.

A rival gets MODEL_DIR, our own archive unpacked, and the environment that its feature_store.yaml needs.
The request is ours: a raw identifier, masked here as at our own door.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from feast import FeatureStore

from handlers.encoding import encode
from handlers.identity import pseudonym


class Recipe:
    """Reads and scores the way the documentation of Feast and of PyTorch shows it."""

    def __init__(self) -> None:
        model_dir = Path(os.environ["MODEL_DIR"])
        bundle = json.loads((model_dir / "bundle.json").read_text(encoding="utf-8"))
        self.threshold = float(bundle["threshold"])
        self.numeric: list[str] = bundle["numeric"]
        self.vocabulary: dict[str, list[str]] = bundle["vocabulary"]
        self._id_type: str = bundle["entity"]["id_type"]
        self._join_key: str = bundle["entity"]["join_key"]
        self._key = mask_key()
        self._store = FeatureStore(repo_path=str(model_dir))
        self._service = self._store.get_feature_service(bundle["spec"]["service"])
        torch.set_num_threads(1)  # as ours; more are slower at these sizes
        self._program = torch.export.load(model_dir / "model.pt2").module()

    def features(self, user_ids: Sequence[Any]) -> dict[str, list[Any]]:
        """Column by column, a value a customer."""
        rows = [{self._join_key: pseudonym(user_id, self._id_type, self._key)} for user_id in user_ids]
        columns: dict[str, list[Any]] = self._store.get_online_features(
            features=self._service, entity_rows=rows
        ).to_dict()
        return columns

    def score(self, columns: dict[str, list[Any]]) -> list[float]:
        numbers, codes = encode(columns, self.numeric, self.vocabulary)
        with torch.inference_mode():
            scores: list[float] = self._program(torch.from_numpy(numbers), torch.from_numpy(codes)).tolist()
        return scores

    def answer(self, user_ids: Sequence[Any]) -> list[dict[str, Any]]:
        """A JSON object a customer, with probability and decision."""
        return [
            answer(user_id, score, self.threshold)
            for user_id, score in zip(user_ids, self.score(self.features(user_ids)), strict=True)
        ]


def answer(user_id: Any, score: float, threshold: float) -> dict[str, Any]:
    decision = "High Risk" if score > threshold else "Low Risk"
    return {"user_id": user_id, "churn_probability": score, "prediction": decision}


def mask_key() -> bytes:
    if file := os.environ.get("CHURN_MASK_KEY_FILE"):
        return Path(file).read_text(encoding="utf-8").strip().encode()
    return os.environ["CHURN_MASK_KEY"].strip().encode()


def port() -> int:
    return int(os.environ["PORT"])
