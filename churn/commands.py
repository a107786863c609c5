"""What each command does: call the rooms, show the result. Rooms are imported when they are needed."""

import json
import os
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churn import console
from churn.lock import alone
from churn.settings import Settings
from data.errors import ChurnError, ConfigError, ServingError, TrainingError

if TYPE_CHECKING:
    from pipelines.engine import Outcome


def run(settings: Settings, arguments: Namespace) -> int:
    from pipelines.loop import TOTAL, run_loop

    with alone(settings.files), console.steps(TOTAL) as shown:
        context = _context(settings, shown.say)
        record, answers, refusal = run_loop(context, arguments.force, shown.start, _told(shown))
    _show_models(record)
    _show_gates(record["gates"])
    if refusal is None:
        console.pairs("Archive", record["archive"])
        _show_answers(answers)
    console.out.print(f"Report: {record['report']}\nFacts for machines: {settings.files.run_record}")
    if refusal is not None:
        raise refusal
    console.out.print("Next: [bold]churn serve[/] in one terminal, [bold]churn predict[/] in another")
    return 0


def ingest(settings: Settings, arguments: Namespace) -> int:
    _run_one(settings, "ingest")
    manifest = _read(settings.files.manifest)
    facts = {key: manifest[key] for key in ("rows", "rejected_rows", "customers", "output_sha256")}
    window = manifest["window"]
    console.pairs("Records", {**facts, "window": f"{window['start']} to {window['end']}"})
    console.out.print(f"Manifest: {settings.files.manifest}\nNext: [bold]churn features build[/]")
    return 0


def features_build(settings: Settings, arguments: Namespace) -> int:
    if arguments.as_of:
        from features.build import build_features

        with alone(settings.files), console.steps(1) as shown:
            build_features(settings.features, settings.files, arguments.as_of, shown.say)
    else:
        _run_one(settings, "features")
    record = _read(settings.files.feature_manifest)
    facts = {key: record[key] for key in ("rows", "label_rows", "latest")}
    facts |= {key: len(record[key]) for key in ("snapshots", "labelled_snapshots")}
    console.pairs("Features", facts)
    console.out.print("Next: [bold]churn features materialize[/]")
    return 0


def features_materialize(settings: Settings, arguments: Namespace) -> int:
    _run_one(settings, "online store")
    console.out.print("The newest snapshot is online. Next: [bold]churn train[/]")
    return 0


def features_show(settings: Settings, arguments: Namespace) -> int:
    from features.show import describe

    rows = describe(settings.features, settings.files)
    console.table(
        f"{settings.features.service}  spec {settings.features.digest()[:12]}",
        ("feature", "type", "default", "present", "min", "median", "max", "meaning"),
        [
            (
                *(row[key] for key in ("feature", "type", "default")),
                f"{row['non_null_share']:.1%}",
                *(_short(row[key]) for key in ("min", "median", "max")),
                row["description"],
            )
            for row in rows
        ],
    )
    return 0


def tune(settings: Settings, arguments: Namespace) -> int:
    asked = {
        "trials": arguments.trials,
        "workers": arguments.workers,
        "timeout_s": arguments.timeout,
        "study": arguments.study,
    }
    tuning = settings.tuning.model_copy(
        update={key: value for key, value in asked.items() if value is not None}
    )
    settings = settings.model_copy(update={"tuning": tuning})
    _run_one(settings, "tune")
    record = _read(settings.files.tuned)
    facts = {"study": record["study"], "trials": record["trials"], "log-loss": record["log_loss"]}
    console.pairs("Best hyperparameters", {**facts, **record["parameters"]})
    console.out.print("Next: [bold]churn train[/]; look with: [bold]churn dashboard optuna[/]")
    return 0


def dashboard_optuna(settings: Settings, arguments: Namespace) -> int:
    from serving.dashboards import optuna_dashboard

    server = optuna_dashboard(settings.tuning.storage, settings.files.trial_artifacts)
    return _show_dashboard(settings, server, arguments.port)


def dashboard_mlflow(settings: Settings, arguments: Namespace) -> int:
    from serving.dashboards import mlflow_server

    server = mlflow_server(settings.training.tracking_uri, settings.training.artifacts_uri)
    return _show_dashboard(settings, server, arguments.port)


def _show_dashboard(settings: Settings, server: Any, port: int) -> int:
    from serving.dashboards import Dashboard

    log = settings.files.root / "dashboards" / f"{server.name}.log"
    with console.err.status(f"starting {server.name}") as shown, Dashboard(server, port, log) as ours:
        shown.stop()
        console.out.print(f"{server.name} until interrupted (Ctrl-C): {ours.url}", soft_wrap=True)
        try:
            while ours.alive:
                time.sleep(0.5)
        except KeyboardInterrupt:
            return 0
    raise ServingError(f"{server.name} ended by itself; see {log}")


def train(settings: Settings, arguments: Namespace) -> int:
    _run_one(settings, "train")
    _show_models(_read(settings.files.training / "metrics.json"))
    console.out.print("Next: [bold]churn gates[/]")
    return 0


def gates(settings: Settings, arguments: Namespace) -> int:
    from pipelines.loop import gate_failure

    if arguments.reason and not arguments.override:
        raise ConfigError("--reason: of what? name the rule with --override")
    overrides = tuple((rule, arguments.reason) for rule in arguments.override)
    _run_one(settings, "gates", overrides)
    _show_gates(_read(settings.files.gate_report / "gate_report.json"))
    if refusal := gate_failure(settings.files):
        raise refusal
    console.out.print("Next: [bold]churn package[/]")
    return 0


def package(settings: Settings, arguments: Namespace) -> int:
    _run_one(settings, "package")
    console.pairs("Archive", _read(settings.files.archive_record))
    console.out.print("Next: [bold]churn serve[/]")
    return 0


def registry_list(settings: Settings, arguments: Namespace) -> int:
    from training.registry import Registry

    registry = Registry(settings.training)
    names: dict[str, list[str]] = {}
    for alias, number in registry.aliases().items():
        names.setdefault(number, []).append(alias)
    rows = [
        (
            version.number,
            ", ".join(sorted(names.get(version.number, []))),
            version.tags.get("gates"),
            version.tags.get("model_version"),
            version.run_id,
        )
        for version in registry.versions()
    ]
    console.table(settings.training.model_name, ("version", "alias", "gates", "model", "run"), rows)
    return 0


def registry_promote(settings: Settings, arguments: Namespace) -> int:
    from training.registry import CHALLENGER, Registry
    from training.tracking import numbers_of

    registry = Registry(settings.training)
    number = arguments.version or registry.aliases().get(CHALLENGER)
    if number is None:
        raise TrainingError("registry promote: there is no challenger; name a version")
    with alone(settings.files):
        numbers = numbers_of(settings.training, registry.version(number).run_id)
        done = registry.promote(number, _who(), datetime.now(UTC), arguments.reason, numbers)
    words = "is the champion" if done else "was the champion already"
    console.out.print(f"Version {number} {words}. Next: [bold]churn registry history[/]")
    return 0


def registry_rollback(settings: Settings, arguments: Namespace) -> int:
    from training.registry import CHAMPION, Registry

    registry = Registry(settings.training)
    with alone(settings.files):
        registry.rollback(_who(), datetime.now(UTC), arguments.reason)
    console.out.print(f"Version {registry.aliases()[CHAMPION]} is the champion again.")
    return 0


def registry_history(settings: Settings, arguments: Namespace) -> int:
    from training.registry import Registry

    rows = [
        (
            d.when[:19],
            d.who,
            d.action,
            d.version,
            d.numbers.get("log_loss"),
            d.why,
            "" if d.applied else "cut short",
        )
        for d in Registry(settings.training).history()
    ]
    console.table("Decisions", ("when", "who", "action", "version", "log-loss", "why", ""), rows)
    return 0


def serve(settings: Settings, arguments: Namespace) -> int:
    from pipelines.live import server

    now = datetime.now(UTC)
    files, model = settings.files, settings.serving.model_name
    with (
        console.err.status("starting TorchServe") as shown,
        server(settings, files, now, arguments.as_of or now) as ours,
    ):
        shown.stop()
        console.pairs(
            "Serving until interrupted (Ctrl-C)",
            {
                "native": f"{ours.inference}/predictions/{model}",
                "KServe v1": f"{ours.inference}/v1/models/{model}:predict",
                "Open Inference v2": f"{ours.inference}/v2/models/{model}/infer",
                "management": ours.management,
                "metrics": f"{ours.metrics}/metrics",
            },
        )
        console.out.print("Next: [bold]churn predict USER_ID[/]")
        try:
            while ours.alive:
                time.sleep(0.5)
        except KeyboardInterrupt:
            return 0
    raise ServingError(f"TorchServe ended by itself; see {files.serving / 'logs'}")


def predict(settings: Settings, arguments: Namespace) -> int:
    from serving.client import predict as ask
    from serving.client import running

    server = running(settings.files)
    id_type = _read(settings.files.manifest)["id_type"]
    answers = ask(
        server["inference"], server["model"], [_user_id(text, id_type) for text in arguments.user_id]
    )
    if arguments.json:
        console.out.print_json(json.dumps(answers))
    else:
        _show_answers(answers)
    return 1 if any("error" in answer for answer in answers) else 0


def config_show(settings: Settings, arguments: Namespace) -> int:
    console.out.print_json(settings.model_dump_json())
    return 0


def explain(error: ChurnError) -> None:
    """What went wrong as one line on stderr; details, when there are any, as a table before it on stdout."""
    if error.table:
        columns = list(error.table[0])
        console.table("What failed", columns, [[row.get(c) for c in columns] for row in error.table])
    console.err.print(f"[bold red]churn:[/] {_escaped(str(error))}", soft_wrap=True)


def _context(settings: Settings, say: Any, overrides: tuple[tuple[str, str], ...] = ()) -> Any:
    from pipelines.context import Context

    return Context(settings, datetime.now(UTC), say, _who(), overrides)


def _who() -> str:
    """The user, as the decision log names people."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def _run_one(settings: Settings, name: str, overrides: tuple[tuple[str, str], ...] = ()) -> None:
    """One step of the loop, whether or not its inputs have changed: who names it wants it done."""
    from pipelines.engine import run_steps
    from pipelines.steps import STEPS

    step = next(step for step in STEPS if step.name == name)
    with alone(settings.files), console.steps(1) as shown:
        run_steps(
            [step],
            _context(settings, shown.say, overrides),
            True,
            lambda step: shown.start(step.title),
            _told(shown),
        )


def _told(shown: console.Steps) -> "Callable[[Outcome], None]":
    def tell(outcome: "Outcome") -> None:
        how = "[dim]unchanged[/]" if outcome.skipped else f"{outcome.seconds:.1f} s"
        shown.end(f"[green]✓[/] {outcome.step:<14}{how}")

    return tell


def _show_models(record: Any) -> None:
    from pipelines.report import model_rows

    shown = {
        "log_loss": "log-loss",
        "auroc": "AUROC",
        "auprc": "AUPRC",
        "accuracy": "accuracy",
        "brier": "Brier",
        "ece": "ECE",
    }
    rows = [[row["name"].replace("_", " "), *(row[c] for c in shown)] for row in model_rows(record)]
    title = f"On {record['metrics']['rows']:,.0f} test rows the network never saw"
    console.table(title, ("model", *shown.values()), rows, emphasise_first=True)


def _show_gates(report: Any) -> None:
    rows = [(v["rule"], "holds" if v["passed"] else "FAILS", v["reason"]) for v in report["verdicts"]]
    console.table(f"Gates, profile {report['profile']}", ("rule", "verdict", "why"), rows)


def _show_answers(answers: Sequence[Any]) -> None:
    columns = ("user_id", "churn_probability", "prediction", "status", "model_version")
    rows = [
        [str(answer["user_id"]), *(answer.get(c, answer.get("error", "")) for c in columns[1:])]
        for answer in answers
    ]
    console.table("Answers of the server", [c.replace("_", " ") for c in columns], rows)


def _user_id(text: str, id_type: str) -> int | str:
    """As the source has it: 42 on the command line is a number where identifiers are numbers."""
    if id_type == "integer" and text.lstrip("-").isdigit():
        return int(text)
    return text


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
