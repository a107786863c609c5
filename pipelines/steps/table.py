"""The steps in order: what each does, depends on, reads and writes."""

from pathlib import Path

from pipelines.context import Context
from pipelines.engine import Step
from pipelines.steps import depends, intact
from pipelines.steps.data import compute_features, fill_online_store, ingest_source, join_training_set
from pipelines.steps.learning import judge_model, package_model, search_settings, train_model

LEARNING = ("torch", "pytorch-lightning", "optuna", "scikit-learn", "numpy", "scipy", "tabm")
"""Distributions whose version decides the result of a fit."""


def _trained(context: Context) -> list[Path]:
    """All files of the training that later steps read."""
    names = ("metrics.json", "model.pt2", "members.ckpt", "settled.json", "inputs.json", "baselines.json")
    return [context.files.training / name for name in (*names, "test_scores.parquet")]


STEPS = (
    Step(
        name="ingest",
        title="Validate and mask the source",
        act=ingest_source,
        depends=depends.source,
        rooms=("data",),
        reads=lambda c: [],
        writes=lambda c: [c.files.manifest, c.files.records],
        libraries=("pandas", "pyarrow", "duckdb", "great_expectations"),
    ),
    Step(
        name="features",
        title="Build snapshots and labels",
        act=compute_features,
        depends=depends.features,
        rooms=("features",),
        reads=lambda c: [c.files.manifest],
        writes=lambda c: [c.files.feature_manifest, c.files.snapshots, c.files.labels],
        is_intact=intact.features,
        libraries=("duckdb", "pyarrow"),
    ),
    Step(
        name="online store",
        title="Put the newest features online",
        act=fill_online_store,
        depends=depends.services,
        rooms=("features",),
        reads=lambda c: [c.files.feature_manifest],
        writes=lambda c: [c.files.feast / "feature_store.yaml"],
        is_intact=intact.online_store,
    ),
    Step(
        name="training set",
        title="Join labels and features, point in time",
        act=join_training_set,
        depends=depends.config("features"),
        rooms=("features",),
        reads=lambda c: [c.files.feature_manifest, c.files.feast / "feature_store.yaml"],
        writes=lambda c: [c.files.training_set],
        libraries=("feast", "duckdb"),
    ),
    Step(
        name="tune",
        title="Search hyperparameters",
        act=search_settings,
        depends=depends.tuned,
        rooms=("model", "training"),
        reads=lambda c: [c.files.feature_manifest, c.files.training_set],
        writes=lambda c: [c.files.tuned],
        is_intact=intact.study,
        libraries=LEARNING,
    ),
    Step(
        name="train",
        title="Fit the network and its baselines",
        act=train_model,
        depends=depends.tuned,
        rooms=("model", "training"),
        reads=lambda c: [c.files.training_set, c.files.tuned],
        writes=_trained,
        libraries=LEARNING,
    ),
    Step(
        name="gates",
        title="Judge the model",
        act=judge_model,
        depends=depends.judged_by,
        rooms=("training", "handlers"),
        reads=lambda c: [c.files.training / "metrics.json", c.files.training / "model.pt2"],
        writes=lambda c: [c.files.gate_report / "gate_report.json"],
        judges=True,
    ),
    Step(
        name="package",
        title="Archive and register the challenger",
        act=package_model,
        depends=depends.config("features", "training", "serving", "decision"),
        rooms=("features", "training", "handlers"),
        reads=lambda c: [c.files.gate_report / "gate_report.json", c.files.training / "model.pt2"],
        writes=lambda c: [c.files.archive_record],
        is_intact=intact.archive,
        libraries=("torchserve", "torch-model-archiver"),
    ),
)
