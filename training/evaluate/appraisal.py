"""Cross-validation and importance of features, stored beside the model as `appraisal.json`.

MLflow's run, the model card and the report show it. No gate uses it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.evaluate.cross_validation import CrossValidation
from training.evaluate.importance import Importance

FILE = "appraisal.json"


def write_appraisal(folder: Path, check: CrossValidation | None, importances: Sequence[Importance]) -> None:
    """Writes FILE into `folder`; `check` is None if cross-validation is switched off."""
    content = {
        "cross_validation": None if check is None else check.content(),
        "importance": [one.content() for one in importances],
    }
    (folder / FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_appraisal(folder: Path) -> dict[str, Any]:
    """`cross_validation` (or None) and `importance`; both empty if the training did not write the file."""
    file = folder / FILE
    if not file.is_file():
        return {"cross_validation": None, "importance": []}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def appraisal_metrics(folder: Path) -> dict[str, float]:
    """Metrics for MLflow: `cross_validation/<metric>/mean|spread|<fold>` and `importance/<feature>`."""
    content = read_appraisal(folder)
    found: dict[str, float] = {}
    if check := content["cross_validation"]:
        for kind in ("mean", "spread"):
            for name, value in check[kind].items():
                if value is not None:
                    found[f"cross_validation/{name}/{kind}"] = value
        for fold in check["folds"]:
            for name, value in fold["metrics"].items():
                found[f"cross_validation/{name}/{fold['name']}"] = value
    return found | {f"importance/{one['feature']}": one["increase"] for one in content["importance"]}
