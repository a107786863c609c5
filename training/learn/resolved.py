"""The settings of a fit: as they were given, with gaps, and resolved, without gaps.

A setting that is null is a gap; training/learn/recipe.py fills it. The types keep the two states separate:
code that needs a value takes the resolved type. One gap is closed later, in the fit: `training.epochs`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from core.errors import TrainingError
from features.spec import FeaturesConfig
from model.config import ModelConfig
from training.config import TrainingConfig
from training.learn.split import Shape

FILE = "settled.json"
ELSEWHERE = {"tracking_uri", "artifacts_uri", "experiment", "model_name"}
"""Settings of where a run is stored, which have no effect on it; addresses may contain a password."""


class ResolvedModel(ModelConfig):
    """The model's settings without gaps. `purchase_process` alone may be null: the training rows decide."""

    architecture: Literal["mlp", "tabm"]
    hidden: tuple[int, ...] = Field(min_length=1)
    dropout: float = Field(ge=0, lt=1)
    submodels: int = Field(gt=0)
    numeric_embedding: Literal["none", "piecewise_linear", "periodic"]
    wide: bool
    trees: bool
    seeds: tuple[int, ...] = Field(min_length=1)


class ResolvedTraining(TrainingConfig):
    """The training settings without gaps. `epochs` alone may be null, until the fit has chosen it."""

    batch_size: int = Field(gt=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)


@dataclass(frozen=True)
class FitSettings:
    """Everything but the rows that a fit depends on."""

    shape: Shape
    spec: FeaturesConfig
    model: ModelConfig
    training: TrainingConfig


@dataclass(frozen=True)
class ResolvedSettings(FitSettings):
    """The settings without gaps (`training.learn.recipe.resolve` makes them)."""

    model: ResolvedModel
    training: ResolvedTraining


@dataclass(frozen=True)
class FitRecord:
    """The settings that a fit used, and what it chose by the rows; stored as `settled.json`."""

    model: ResolvedModel
    training: ResolvedTraining
    cross_fit: Mapping[str, float] = field(default_factory=dict)
    """Penalty of the linear path and weights of the paths; empty without a wide path."""

    def params(self) -> dict[str, Any]:
        """`model.<field>`, `training.<field>` and `cross_fit.<name>` -> value."""
        return {
            f"{part}.{key}": value for part, tree in self._content().items() for key, value in tree.items()
        }

    def write(self, folder: Path) -> None:
        """Writes FILE into `folder`."""
        (folder / FILE).write_text(json.dumps(self._content(), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises TrainingError if the file is missing or of another version."""
        file = folder / FILE
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return cls(
                ResolvedModel.model_validate(content["model"]),
                ResolvedTraining.model_validate(content["training"]),
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
