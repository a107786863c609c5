"""What a checkpoint of `training/learn/module.py` contains: enough to score raw rows, and to resume.

Only plain values and tensors, below the key `churn`, so that `torch.load(weights_only=True)` reads it.
"""

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError

from core.errors import TrainingError
from features.spec import FeaturesConfig
from model.program import Program
from training.learn.inputs import Inputs
from training.learn.resolved import ResolvedModel, ResolvedTraining

ADDRESSES = {"tracking_uri", "artifacts_uri"}
"""Left out: they belong to the machine, not to the model, and may contain a password."""


@dataclass(frozen=True)
class Contract:
    """A model with everything that its scores depend on: preprocessing, vocabulary, features, configs."""

    program: Program
    """Shares its members with the module that trains them."""
    inputs: Inputs
    spec: FeaturesConfig
    model: ResolvedModel
    training: ResolvedTraining

    def content(self) -> dict[str, Any]:
        """What is saved below the key `churn`."""
        file: Any = io.BytesIO()
        self.program.save(file, self.inputs.cardinalities, self.model)
        file.seek(0)
        return {
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json", exclude=ADDRESSES),
            "spec": self.spec.contract(),
            "spec_digest": self.spec.digest(),
            "inputs": json.loads(self.inputs.to_json()),
            "program": torch.load(file, weights_only=True, map_location="cpu"),
        }

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a checkpoint. Raises TrainingError with the path if this program did not write it."""
        if not path.is_file():
            raise TrainingError(f"{path}: not there; `python -m training fit` writes it")
        if not zipfile.is_zipfile(path):
            raise TrainingError(f"{path}: not a checkpoint; give one that `python -m training fit` wrote")
        try:
            content = torch.load(path, weights_only=True, map_location="cpu")["churn"]
            return cls(
                program=_program(content["program"]),
                inputs=Inputs.from_content(content["inputs"]),
                spec=FeaturesConfig.model_validate(content["spec"]),
                model=ResolvedModel.model_validate(content["model"]),
                training=ResolvedTraining.model_validate(content["training"]),
            )
        except (pickle.UnpicklingError, KeyError, TypeError, RuntimeError, ValidationError) as error:
            why = " ".join(str(error).split())[:120]
            raise TrainingError(
                f"{path}: not a checkpoint of this version of `python -m training fit` ({why}); fit again"
            ) from None

    def refuse_another(self, content: Mapping[str, Any]) -> None:
        """Raises TrainingError with the part that differs, if a checkpoint's `content` is of another fit."""
        this_fit = self.content()
        for part, remedy in (
            ("model", "give the same model settings"),
            ("spec_digest", "give the same configs/features.yaml"),
            ("inputs", "train on the same rows"),
        ):
            if _without_reference(content[part]) != _without_reference(this_fit[part]):
                raise TrainingError(f"ckpt_path: made with another {part}; {remedy}, or start without it")
        ours, theirs = _preprocessing(this_fit), _preprocessing(content)
        if ours.keys() != theirs.keys() or not all(torch.equal(ours[key], theirs[key]) for key in ours):
            raise TrainingError("ckpt_path: made of other rows; train on the same rows, or start without it")


def _program(content: Mapping[str, Any]) -> Program:
    file: Any = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return Program.load(file)


def _without_reference(part: Any) -> Any:
    """Without the reference customer: a comparison of preprocessing covers its values."""
    return {k: v for k, v in part.items() if k != "reference"} if isinstance(part, dict) else part


def _preprocessing(content: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    state = content["program"]["state"]
    return {key: value for key, value in state.items() if key.startswith("preprocessing.")}
