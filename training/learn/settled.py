"""The settings that a fit used: the resolved configs, and what was chosen by the rows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from core.errors import TrainingError
from model.config import ModelConfig
from training.config import TrainingConfig

FILE = "settled.json"
ELSEWHERE = {"tracking_uri", "artifacts_uri", "experiment", "model_name"}
"""Settings of where a run is stored, which have no effect on it; addresses may contain a password."""


@dataclass(frozen=True)
class ResolvedSettings:
    """The resolved configs and the out-of-fold choice, stored as `settled.json`."""

    model: ModelConfig
    training: TrainingConfig
    cross_fit: Mapping[str, float] = field(default_factory=dict)
    """Penalty of the linear path and weights of the paths; empty without a wide path."""

    def params(self) -> dict[str, Any]:
        """`model.<field>`, `training.<field>` and `cross_fit.<name>` -> value."""
        return {
            f"{part}.{key}": value for part, tree in self._content().items() for key, value in tree.items()
        }

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(self._content(), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises TrainingError if the file is missing or of another version."""
        file = folder / FILE
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return cls(
                ModelConfig.model_validate(content["model"]),
                TrainingConfig.model_validate(content["training"]),
                content["cross_fit"],
            )
        except (OSError, ValueError, KeyError, ValidationError) as error:
            raise TrainingError(f"{file}: {type(error).__name__}; run `churn train` again") from None

    def _content(self) -> dict[str, dict[str, Any]]:
        return {
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json", exclude=ELSEWHERE),
            "cross_fit": dict(self.cross_fit),
        }
