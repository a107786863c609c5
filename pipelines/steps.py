"""The steps of the loop, in order: what each does, depends on, reads and writes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import TrainingError
from core.workspace import write_atomically
from pipelines import standing
from pipelines.code import git_commit
from pipelines.context import Context
from pipelines.engine import Step

if TYPE_CHECKING:
    import pandas as pd

    from model.config import ModelConfig
    from training.config import TrainingConfig, TuningConfig
    from training.gates import GateReport


def _ingest(context: Context) -> None:
    from data.ingest import ingest

    ingest(context.settings.data, context.files, context.as_of, context.say, _columns_read(context))


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
    from training.tuning.study_runs import record_study
    from training.tuning.tune import tune

    s = context.settings
    best = tune(
        _rows(context),
        _shape(context),
        *(s.features, s.model, s.training, searched(context)),
        context.files,
        context.say,
    )
    record = {
        "study": best.study,
        "trials": best.trials,
        "log_loss": best.best_log_loss,
        "parameters": best.best_params,
    }
    if best.study:
        context.say("recording the trials in MLflow")
        record_study(best.study, s.training, s.tuning)
    write_atomically(context.files.tuned, json.dumps(record, indent=2))


def _train(context: Context) -> None:
    from training.train import train

    model, training = chosen(context)
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
    from functools import partial

    from features.store import serving_yaml
    from training.decision_value import acting_threshold
    from training.gates import Override, judge, write_report
    from training.gates.collect import collect_evidence
    from training.gates.slices import breakdown
    from training.release.package import stage

    s, files = context.settings, context.files
    _, training = chosen(context)
    overrides = tuple(Override.by(context.who, context.as_of, *override) for override in context.overrides)
    threshold = acting_threshold(s.decision, training.threshold)
    context.say("scoring the test rows with the exported program")
    candidate = partial(
        stage, training, s.features, files, serving_yaml(s.features, files), s.serving.model_name, threshold
    )
    evidence = collect_evidence(
        _rows(context), _shape(context), s.features, training, files, s.gates, candidate, threshold=threshold
    )
    context.say("judging")
    parts = breakdown(evidence.sample) if evidence.sample is not None else None
    report = judge(s.gates, evidence, overrides)
    write_report(report, files, parts)
    if not report.passed:
        try:
            _record(context, report)
        except TrainingError:
            if evidence.champion is None or evidence.champion.state != "unusable":
                raise  # otherwise the report says it already, and refuses for it


def _record(context: Context, report: "GateReport") -> str:
    """The run in MLflow of the model that was judged, whatever the judgement; its id."""
    from pipelines.plots import of_scores
    from training.release.tracking import record_run

    s, files = context.settings, context.files
    model, training = chosen(context)
    context.say("recording the run in MLflow")
    drawn = of_scores(files.training / "test_scores.parquet", s.decision, files.training_set)
    return record_run(s.features, model, training, files, report, git_commit(), s.decision, drawn)


def _package(context: Context) -> None:
    from features.store import serving_yaml
    from pipelines.verified import verified
    from training.decision_value import acting_threshold
    from training.release.package import package, passed_report
    from training.release.tracking import register

    s, files = context.settings, context.files
    _, training = chosen(context)
    report, commit = passed_report(files), git_commit()
    run_id = _record(context, report)
    context.say("archiving")
    archive = package(
        training,
        s.features,
        files,
        serving_yaml(s.features, files),
        run_id,
        commit,
        s.serving.model_name,
        acting_threshold(s.decision, training.threshold),
        s.decision,
    )
    context.say("registering the challenger")
    verified(s, archive.path, archive.sha256)
    register(run_id, archive, s.features, training, files, report, commit, context.who, context.as_of)


def _judged_by(context: Context) -> list[Any]:
    """The rules, and whom the model is compared with: another champion is another judgement.

    A model that has become the champion is not judged again for it: it was compared with the one before.
    """
    from training.registry.model_registry import PREVIOUS, Registry

    try:
        registry = Registry(context.settings.training)
        champion = registry.champion()
        if champion is not None and champion.tags.get("program_sha256") == _program(context):
            before = registry.aliases().get(PREVIOUS)
            champion = None if before is None else registry.version(before)
        known = None if champion is None else champion.tags.get("archive_sha256")
    except TrainingError as error:  # the gates will refuse for it; the step has to run to say so
        known = str(error)
    configs = _config("features", "training", "gates", "decision")(context)
    return [*configs, context.settings.serving.model_name, known]


def _config(*sections: str) -> Callable[[Context], Any]:
    return lambda context: [getattr(context.settings, name).model_dump(mode="json") for name in sections]


def _source(context: Context) -> list[Any]:
    """The config, the source's state, and which key masks it (as what the key makes of nothing)."""
    from data.mask import load_key
    from data.source.sources import state
    from handlers.identity import mask

    data = context.settings.data
    key = mask("", load_key(data, context.files))
    return [*_config("data")(context), state(data), key, sorted(_columns_read(context))]


def _columns_read(context: Context) -> frozenset[str]:
    """The source's columns that features read: only those, and the declared ones, enter the records."""
    from features.spec import columns_read

    return columns_read(context.settings.features, context.settings.data.shape)


def _trained(context: Context) -> list[Path]:
    """All that the training leaves for the steps after it."""
    names = ("metrics.json", "model.pt2", "members.ckpt", "settled.json", "inputs.json", "baselines.json")
    return [context.files.training / name for name in (*names, "test_scores.parquet")]


def _tuned(context: Context) -> list[Any]:
    """The configs, and which dimensions of the space are no longer searched since the user gave them."""
    fixed = sorted(context.settings.given & set(context.settings.tuning.space))
    return [*_config("features", "model", "training", "tuning")(context), fixed]


LEARNING = ("torch", "pytorch-lightning", "optuna", "scikit-learn", "numpy", "scipy", "tabm")
"""Distributions that decide what a fit ends with."""

STEPS = (
    Step(
        name="ingest",
        title="Validate and mask the source",
        act=_ingest,
        depends=_source,
        rooms=("data",),
        reads=lambda c: [],
        writes=lambda c: [c.files.manifest, c.files.records],
        libraries=("pandas", "pyarrow", "duckdb", "great_expectations"),
    ),
    Step(
        name="features",
        title="Build snapshots and labels",
        act=_features,
        depends=_config("features"),
        rooms=("features",),
        reads=lambda c: [c.files.manifest],
        writes=lambda c: [c.files.feature_manifest, c.files.snapshots, c.files.labels],
        libraries=("duckdb", "pyarrow"),
    ),
    Step(
        name="online store",
        title="Put the newest features online",
        act=_online_store,
        depends=_config("features"),
        rooms=("features",),
        reads=lambda c: [c.files.feature_manifest],
        writes=lambda c: [c.files.feast / "feature_store.yaml"],
        is_intact=standing.online_store,
    ),
    Step(
        name="training set",
        title="Join labels and features, point in time",
        act=_training_set,
        depends=_config("features"),
        rooms=("features",),
        reads=lambda c: [c.files.feature_manifest, c.files.feast / "feature_store.yaml"],
        writes=lambda c: [c.files.training_set],
        libraries=("feast", "duckdb"),
    ),
    Step(
        name="tune",
        title="Search hyperparameters",
        act=_tune,
        depends=_tuned,
        rooms=("model", "training"),
        reads=lambda c: [c.files.feature_manifest, c.files.training_set],
        writes=lambda c: [c.files.tuned],
        is_intact=standing.study,
        libraries=LEARNING,
    ),
    Step(
        name="train",
        title="Fit the network and its baselines",
        act=_train,
        depends=_tuned,
        rooms=("model", "training"),
        reads=lambda c: [c.files.training_set, c.files.tuned],
        writes=_trained,
        libraries=LEARNING,
    ),
    Step(
        name="gates",
        title="Judge the model",
        act=_gates,
        depends=_judged_by,
        rooms=("training", "handlers"),
        reads=lambda c: [c.files.training / "metrics.json", c.files.training / "model.pt2"],
        writes=lambda c: [c.files.gate_report / "gate_report.json"],
    ),
    Step(
        name="package",
        title="Archive and register the challenger",
        act=_package,
        depends=_config("features", "training", "serving", "decision"),
        rooms=("features", "training", "handlers"),
        reads=lambda c: [c.files.gate_report / "gate_report.json", c.files.training / "model.pt2"],
        writes=lambda c: [c.files.archive_record],
        is_intact=standing.archive,
        libraries=("torchserve", "torch-model-archiver"),
    ),
)


def _program(context: Context) -> str | None:
    file = context.files.training / "model.pt2"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


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


def chosen(context: Context) -> "tuple[ModelConfig, TrainingConfig]":
    """The configs with the study's best in them, where a study has been run; what the user gave stays."""
    from training.tuning.space import apply

    settings = context.settings
    if not context.files.tuned.is_file():
        return settings.model, settings.training
    best = json.loads(context.files.tuned.read_text(encoding="utf-8"))["parameters"]
    searched = {key: value for key, value in best.items() if key not in settings.given}
    return apply(searched, settings.model, settings.training)


def searched(context: Context) -> "TuningConfig":
    """The study's config without the dimensions that the user gave; with none left there are no trials."""
    settings = context.settings
    space = {key: within for key, within in settings.tuning.space.items() if key not in settings.given}
    return settings.tuning.model_copy(update={"space": space} if space else {"space": space, "trials": 0})
