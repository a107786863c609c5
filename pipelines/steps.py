"""The steps of the loop, in order: what each does, depends on, reads and writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import TrainingError
from data.workspace import write_atomically
from pipelines.code import git_commit
from pipelines.context import Context
from pipelines.engine import Step

if TYPE_CHECKING:
    import pandas as pd

    from model.config import ModelConfig
    from training.config import TrainingConfig


def _ingest(context: Context) -> None:
    from data.ingest import ingest

    ingest(context.settings.data, context.files, context.as_of, context.say)


def _features(context: Context) -> None:
    from features.build import build_features

    build_features(context.settings.features, context.files, progress=context.say)


def _online_store(context: Context) -> None:
    from features.store import materialize

    materialize(context.settings.features, context.files, context.say)


def _training_set(context: Context) -> None:
    from features.history import training_set

    rows = training_set(context.settings.features, context.files, context.say)
    file = context.files.training_set
    partial = file.with_suffix(".partial")
    rows.to_parquet(partial, index=False)
    partial.replace(file)


def _tune(context: Context) -> None:
    from training.tune import tune

    s = context.settings
    best = tune(_rows(context), _shape(context), s.features, s.model, s.training, s.tuning, context.say)
    record = {
        "study": best.study,
        "trials": best.trials,
        "log_loss": best.best_log_loss,
        "parameters": best.best_params,
    }
    write_atomically(context.files.tuned, json.dumps(record, indent=2))


def _train(context: Context) -> None:
    from training.train import train

    model, training = _chosen(context)
    train(
        _rows(context),
        _shape(context),
        context.settings.features,
        model,
        training,
        context.files,
        context.say,
    )


def _gates(context: Context) -> None:
    from training.evidence import collect_evidence
    from training.gates import judge, write_report

    s = context.settings
    _, training = _chosen(context)
    context.say("scoring the test rows with the exported program")
    evidence = collect_evidence(_rows(context), _shape(context), s.features, training, context.files)
    write_report(judge(s.gates, evidence), context.files)


def _package(context: Context) -> None:
    from features.store import serving_yaml
    from training.gates import GateReport
    from training.package import package
    from training.tracking import record_run, register

    s, files = context.settings, context.files
    model, training = _chosen(context)
    report, commit = GateReport.read(files.gate_report), git_commit()
    context.say("recording the run in MLflow")
    run_id = record_run(s.features, model, training, files, report, commit)
    context.say("archiving")
    archive = package(
        training, s.features, files, serving_yaml(s.features), run_id, commit, s.serving.model_name
    )
    context.say("registering the challenger")
    register(run_id, archive, s.features, training, files, report, commit)


def _config(*sections: str) -> Callable[[Context], Any]:
    return lambda context: [getattr(context.settings, name).model_dump(mode="json") for name in sections]


def _source(context: Context) -> list[Any]:
    """The config, the source's state, and which key masks it (as what the key makes of nothing)."""
    from data.mask import load_key
    from data.sources import state
    from handlers.identity import mask

    data = context.settings.data
    return [*_config("data")(context), state(data), mask("", load_key(data, context.files))]


def _databases(context: Context) -> list[Path]:
    """The registry and the online store, where they are files."""
    from features.store import serving_environment

    addresses = serving_environment(context.settings.features, context.files).values()
    return [Path(address) for address in addresses if Path(address).is_absolute()]


STEPS = (
    Step(
        name="ingest",
        title="Validate and mask the source",
        act=_ingest,
        depends=_source,
        rooms=("data",),
        reads=lambda c: [],
        writes=lambda c: [c.files.manifest, c.files.records],
    ),
    Step(
        name="features",
        title="Build snapshots and labels",
        act=_features,
        depends=_config("features"),
        rooms=("features",),
        reads=lambda c: [c.files.manifest],
        writes=lambda c: [c.files.feature_manifest, c.files.snapshots, c.files.labels],
    ),
    Step(
        name="online store",
        title="Put the newest features online",
        act=_online_store,
        depends=_config("features"),
        rooms=("features",),
        reads=lambda c: [c.files.feature_manifest],
        writes=lambda c: [c.files.feast / "feature_store.yaml"],
        keeps=_databases,
    ),
    Step(
        name="training set",
        title="Join labels and features, point in time",
        act=_training_set,
        depends=_config("features"),
        rooms=("features",),
        reads=lambda c: [c.files.feature_manifest, c.files.feast / "feature_store.yaml"],
        writes=lambda c: [c.files.training_set],
    ),
    Step(
        name="tune",
        title="Search hyperparameters",
        act=_tune,
        depends=_config("features", "model", "training", "tuning"),
        rooms=("model", "training"),
        reads=lambda c: [c.files.feature_manifest, c.files.training_set],
        writes=lambda c: [c.files.tuned],
    ),
    Step(
        name="train",
        title="Fit the network and its baselines",
        act=_train,
        depends=_config("features", "model", "training"),
        rooms=("model", "training"),
        reads=lambda c: [c.files.training_set, c.files.tuned],
        writes=lambda c: [c.files.training / "metrics.json", c.files.training / "model.pt2"],
    ),
    Step(
        name="gates",
        title="Judge the model",
        act=_gates,
        depends=_config("features", "training", "gates"),
        rooms=("training",),
        reads=lambda c: [c.files.training / "metrics.json", c.files.training / "model.pt2"],
        writes=lambda c: [c.files.gate_report / "gate_report.json"],
    ),
    Step(
        name="package",
        title="Archive and register the challenger",
        act=_package,
        depends=_config("features", "training", "serving"),
        rooms=("training", "handlers"),
        reads=lambda c: [c.files.gate_report / "gate_report.json", c.files.training / "model.pt2"],
        writes=lambda c: [c.files.archive_record],
    ),
)


def _rows(context: Context) -> "pd.DataFrame":
    import pandas as pd

    try:
        return pd.read_parquet(context.files.training_set)
    except FileNotFoundError:
        raise TrainingError(
            f"{context.files.training_set}: not there; run `churn train` after the features"
        ) from None


def _shape(context: Context) -> Any:
    return context.settings.data.shape


def _chosen(context: Context) -> "tuple[ModelConfig, TrainingConfig]":
    """The configs with the study's best in them, where a study has been run."""
    from training.space import apply

    model, training = context.settings.model, context.settings.training
    if not context.files.tuned.is_file():
        return model, training
    return apply(json.loads(context.files.tuned.read_text(encoding="utf-8"))["parameters"], model, training)
