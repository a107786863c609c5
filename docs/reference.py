"""The pages of the reference, written from the code each time the site is built (docs/site_pages.py).

Commands come from the argparse parser, settings from the config classes and `configs/`, metrics from the
handler and the rollout controller, features from `configs/features.yaml`, and the HTTP interface from
`docs/openapi.json`.
"""

import argparse
import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, cast, get_args

import yaml
from prometheus_client import CollectorRegistry

from churn import cli
from churn.settings import STAGES, Settings
from core.config import Config
from core.layers import CONFIGS
from features.spec import FeaturesConfig
from handlers import telemetry
from monitoring.exported import Reading
from monitoring.exporter import Exporter
from rollout.database.ledger_counts import LedgerCounts
from rollout.database.monitor_runs import RunRows
from rollout.health import Standing
from stream.measures import Measures
from training.gates import RULES

OPENAPI = Path(__file__).with_name("openapi.json")
LONGEST_DEFAULT = 70
"""Characters. A longer default, such as the list of features, is shown by the name of its file."""


class Setting(NamedTuple):
    key: str
    """As after `--set`; `[]` is an element of a list, `NAME` a name that the user chooses."""
    type: str
    default: str
    meaning: str


def pages() -> dict[str, str]:
    """Path below `docs/` -> Markdown, for each page of the reference that is not written by hand."""
    return {
        "reference/commands.md": commands_page(),
        "reference/settings.md": settings_page(),
        "reference/metrics.md": metrics_page(),
        "reference/features.md": features_page(),
        "reference/http-api.md": http_page(json.loads(OPENAPI.read_text(encoding="utf-8"))),
    }


# --- commands -------------------------------------------------------------------------------------


def commands_page() -> str:
    parser = cli.parser()
    lines = [
        "# Commands",
        "",
        "Settings may be given to every command, before or after its name.",
        "",
        *_arguments(parser),
    ]
    for name, command in commands(parser):
        text, _, examples = (command.epilog or "").partition("examples:\n")
        lines += ["", f"## churn {name}", "", _prose(command.description or text), ""]
        lines += [*_arguments(command), "", "```sh", textwrap.dedent(examples).strip(), "```"]
    return "\n".join(lines) + "\n"


def commands(
    parser: argparse.ArgumentParser, above: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Name and parser of each command; a command of a group has two words."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                if below.get_default("act") is not None:
                    yield f"{above}{name}", below
                yield from commands(below, f"{above}{name} ")


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A definition list. The settings of every command are shown once, for the parser itself."""
    common = {"--profile", "--config", "--set"} if parser.prog != "churn" else set()
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction) or common & {
            *action.option_strings
        }:
            continue
        name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        value = (
            f" {action.metavar or action.dest.upper()}" if action.option_strings and action.nargs != 0 else ""
        )
        note = {True: "required", False: ""}[action.required and bool(action.option_strings)]
        note = {"+": "one or more", "?": "optional"}.get(str(action.nargs), note)
        help_text = (action.help or "") % {"default": action.default} if action.help else ""
        yield from _definition(f"{name}{value}", note, help_text)


# --- settings -------------------------------------------------------------------------------------


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Each key, with its type, the value that is shipped, and its meaning. A setting comes from"
        " `configs/`, then from the profile, then from each `--config FILE`, then from each"
        " `--set KEY=VALUE`; the last one counts.",
    ]
    shown = None
    for setting in settings():
        stage = setting.key.partition(".")[0]
        if stage != shown:
            where = f"`configs/{stage}.yaml`" if stage in STAGES else "In each file of `configs/profiles/`"
            lines += ["", f"## {stage}", "", f"{where}.", ""]
            shown = stage
        lines += _definition(setting.key, f"{setting.type}; default {setting.default}", setting.meaning)
    return "\n".join(lines) + "\n"


def settings() -> Iterator[Setting]:
    """Every key of the settings. Keys that occur in several places are listed once."""
    shipped = {
        stage: yaml.safe_load((CONFIGS / f"{stage}.yaml").read_text(encoding="utf-8")) for stage in STAGES
    }
    shipped |= yaml.safe_load((CONFIGS / "profiles" / "local.yaml").read_text(encoding="utf-8"))
    seen = set()
    for setting in _settings(Settings, "", shipped, {}):
        if setting.key in seen:
            continue  # of two classes that one key accepts
        seen.add(setting.key)
        yield setting
        if setting.key == "gates.profiles":
            profile = shipped["gates"]["profiles"]["default"]
            for name, rule in RULES.items():
                arguments = ", ".join(f"`{argument}`" for argument in rule.model_fields)
                value = _value(profile.get(name), "gates.")
                yield Setting(f"gates.profiles.NAME.{name}", arguments, value, inspect.getdoc(rule) or "")


def _settings(
    config: type[Config], above: str, shipped: Mapping[str, Any], first: dict[type[Config], str]
) -> Iterator[Setting]:
    """`first`: where the keys of a class were listed already."""
    schema = config.model_json_schema()
    texts = meanings(config)
    for name, field in config.model_fields.items():
        key, known = f"{above}{name}", isinstance(shipped, Mapping) and name in shipped
        value = shipped[name] if known else field.get_default(call_default_factory=True)
        nested = list(dict.fromkeys(_configs(field.annotation)))
        written = texts.get(name) or (len(nested) == 1 and nested[0].__doc__) or ""
        if listed := [first[part] for part in nested if part in first]:
            written = f"{written} Keys as in `{listed[0]}`.".strip()
        if not nested or listed or isinstance(value, list | tuple) or value is None or written:
            kind = type_text(schema["properties"][name], schema.get("$defs", {}))
            required = field.is_required() and not known
            yield Setting(key, kind, "none: required" if required else _value(value, above), written)
        for part in reversed(nested):
            if part not in first:
                first[part] = key
                inside = value if isinstance(value, Mapping) else {}
                yield from _settings(part, f"{key}{_element(field.annotation)}.", inside, first)


def _configs(annotation: Any) -> Iterator[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    for part in get_args(annotation):
        yield from _configs(part)


def _element(annotation: Any) -> str:
    text = str(annotation)
    return "[]" if "tuple[" in text else ".NAME" if "dict[" in text else ""


def meanings(config: type[Config]) -> dict[str, str]:
    """Field -> its docstring, the string below it in the source of the class."""
    found: dict[str, str] = {}
    for owner in reversed(config.__mro__):
        if issubclass(owner, Config) and owner is not Config:
            found |= _docstrings(ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0])
    return found


def _docstrings(node: Any) -> dict[str, str]:
    """Name -> the string that follows its assignment in a class or a module."""
    found = {}
    for statement, following in zip(node.body, node.body[1:], strict=False):
        text = following.value if isinstance(following, ast.Expr) else None
        target = statement.target if isinstance(statement, ast.AnnAssign) else None
        target = statement.targets[0] if isinstance(statement, ast.Assign) else target
        if isinstance(target, ast.Name) and isinstance(text, ast.Constant) and isinstance(text.value, str):
            found[target.id] = inspect.cleandoc(text.value)
    return found


def type_text(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """A JSON schema in words, on one line."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "keys" if name in defs and defs[name].get("type") == "object" else f"[{name}](#{name.lower()})"
    if len(schema.get("allOf", ())) == 1:
        return type_text(schema["allOf"][0], defs)
    if parts := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(type_text(part, defs) for part in parts))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        elements = schema.get("items")
        return f"list of {type_text(elements, defs)}" if elements else "list"
    if kind == "object":
        values = schema.get("additionalProperties")
        return (
            f"names, each with {type_text(values, defs)}"
            if isinstance(values, Mapping) and values
            else "keys"
        )
    if kind in ("integer", "number"):
        return f"{kind}{_bounds(schema)}"
    return {"string": "text", "path": "path", None: "any"}.get(schema.get("format", kind), str(kind or "any"))


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {
        "exclusiveMinimum": "above",
        "minimum": "at least",
        "exclusiveMaximum": "below",
        "maximum": "at most",
    }
    if abs(schema.get("minimum", 0)) > 1e15:
        return ""  # the range of 64 bits
    return "".join(f" {words[name]} {schema[name]:g}" for name in words if name in schema)


def _value(value: Any, above: str) -> str:
    plain = json.dumps(
        value,
        default=lambda other: other.model_dump(mode="json") if isinstance(other, Config) else str(other),
    )
    if len(plain) > LONGEST_DEFAULT:
        return f"in `configs/{above.partition('.')[0]}.yaml`"
    return f"`{plain}`"


# --- metrics, features, HTTP ----------------------------------------------------------------------


def metrics_page() -> str:
    lines = [
        "# Metrics",
        "",
        "## Of a worker",
        "",
        "TorchServe's metrics address has these (`churn serve` prints it). Each series also has the labels"
        f" {' and '.join(f'`{label}`' for label in telemetry.COMMON)}. A histogram is the counters"
        " `NAME_bucket` (label `le`), `NAME_sum` and `NAME_count`.",
        "",
    ]
    texts = _docstrings(ast.parse(inspect.getsource(cast(ModuleType, telemetry))))
    names = {value: name for name, value in vars(telemetry).items() if isinstance(value, telemetry.Metric)}
    for kind, metrics in (
        ("histogram", telemetry.HISTOGRAMS),
        ("counter", telemetry.COUNTERS),
        ("gauge", telemetry.GAUGES),
    ):
        for metric in metrics:
            ends = metric.buckets[:1] + metric.buckets[-1:]
            buckets = f"Buckets from {ends[0]:g} to {ends[1]:g}." if ends else ""
            lines += _definition(
                metric.name, _note(kind, metric.labels), f"{texts[names[metric]]} {buckets}".strip()
            )
    lines += [
        "",
        "## Of the rollout controller",
        "",
        "`churn rollout run` answers at `rollout.health_address`, path `/metrics`.",
        "",
    ]
    for family in _controller_metrics():
        suffix = "_total" if family.type == "counter" else ""
        lines += _definition(
            f"{family.name}{suffix}", _note(family.type, family._labelnames), family.documentation
        )
    lines += [
        "",
        "## Of the exporter",
        "",
        "`churn monitor export` answers at `monitoring.exporter.address`. It has the controller's metrics"
        " `churn_rollout_phase`, `_running`, `_paused`, `_stuck` and `_agrees`, too. Each measurement of the"
        " monitor is `churn_measured_NAME` with the labels `model`, `version` and `subject`.",
        "",
    ]
    for family in _exporter_metrics():
        suffix = "_total" if family.type == "counter" else ""
        labels = sorted({label for sample in family.samples for label in sample.labels})
        lines += _definition(f"{family.name}{suffix}", _note(family.type, labels), family.documentation)
    lines += ["", "## Of the stream", "", "`churn stream` answers at `stream.address`.", ""]
    registry = CollectorRegistry()
    Measures(registry)
    for family in registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        labels = ["outcome"] if family.name == "churn_stream_messages" else []
        labels = ["step"] if family.name == "churn_stream_failures" else labels
        lines += _definition(f"{family.name}{suffix}", _note(family.type, labels), family.documentation)
    return "\n".join(lines) + "\n"


def _note(kind: str, labels: Sequence[str]) -> str:
    return f"{kind}; {', '.join(f'`{label}`' for label in labels)}" if labels else kind


def _exporter_metrics() -> Iterator[Any]:
    """The families of metrics of a database that contains one of everything."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    finding = {"check_name": "", "subject": "", "cause": "", "severity": "page"}
    run = RunRows("", moment, {"recorded": moment}, [], [finding])
    key = ("", "", "")
    ledger = LedgerCounts({key: 1}, moment, "", {}, 0, moment, moment, {key: 1})
    exporter = Exporter("", "", 1.0)
    exporter.accept(Reading("", moment, run, None, {}, [], False, ledger))
    shared = {family.name for family in _controller_metrics()}
    return (family for family in exporter.collect() if family.name not in shared)


def _controller_metrics() -> Iterator[Any]:
    """The families of metrics as a controller without a rollout exposes them."""
    store = SimpleNamespace(newest=lambda model: None, projections=lambda model: [])
    notifier = SimpleNamespace(dropped=0, failed={})
    yield from Standing(store, "", SimpleNamespace(silent_s=0.0), notifier).collect()  # type: ignore[arg-type]


def features_page() -> str:
    tree = yaml.safe_load((CONFIGS / "features.yaml").read_text(encoding="utf-8"))
    spec = FeaturesConfig.model_validate(tree)
    lines = [
        "# Feature catalogue",
        "",
        "The features of a transaction log, as shipped in `configs/features.yaml`. Each is computed from the"
        " purchases of the customer before the snapshot. A labelled table has the features that `churn init`"
        f" writes for it. Values are stale after {spec.ttl_days} days.",
        "",
    ]
    for feature in spec.features:
        default = "null" if feature.default is None else f"`{feature.default}`"
        lines += _definition(
            feature.name, f"{feature.dtype}; default {default}", f"{feature.description}: `{feature.sql}`"
        )
    lines += ["", "## Derived at each read", ""]
    for ratio in spec.derived:
        formula = f"{ratio.numerator} / max({ratio.denominator}, {ratio.floor:g})"
        lines += _definition(ratio.name, "float64", f"{ratio.description}: `{formula}`")
    return "\n".join(lines) + "\n"


def http_page(document: Mapping[str, Any]) -> str:
    """`document`: OpenAPI 3.1."""
    lines = [
        "# HTTP interface",
        "",
        f"{document['info']['description']} `GET /openapi.json` returns the document that this page is"
        " made from. A request without a key is refused with 401, except at the paths of health.",
    ]
    errors: dict[str, dict[str, None]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += ["", f"## {method.upper()} {path}", "", operation["summary"], ""]
            if body := operation.get("requestBody"):
                lines += [f"Body: {_content(body)}", ""]
            if operation.get("security") == []:
                lines += ["Needs no key.", ""]
            for status, answer in operation["responses"].items():
                if status == "200":
                    lines += _definition(status, _content(answer), answer["description"])
                else:
                    errors.setdefault(status, {})[answer["description"]] = None
            statuses = [f"`{status}`" for status in operation["responses"] if status != "200"]
            lines += [f"[Errors](#errors): {', '.join(statuses)}"]
    lines += ["", "## Errors", "", "The body of each is an [Error](#error).", ""]
    for status, descriptions in sorted(errors.items()):
        lines += _definition(status, "", " ".join(descriptions))
    lines += ["", "## Schemas"]
    for name, schema in document["components"]["schemas"].items():
        lines += ["", f"### {name}", "", _prose(schema.get("description", "")), ""]
        if "properties" not in schema:
            lines += [f"{type_text(schema, {})}."]
        for key, value in schema.get("properties", {}).items():
            note = "required" if key in schema.get("required", ()) else ""
            lines += _definition(key, note, f"{type_text(value, {})}. {value.get('description', '')}")
    return "\n".join(lines) + "\n"


def _content(of: Mapping[str, Any]) -> str:
    found = [content["schema"] for content in of.get("content", {}).values() if "schema" in content]
    return type_text(found[0], {}) if found else ""


# --- Markdown -------------------------------------------------------------------------------------


def _definition(term: str, note: str, meaning: str) -> list[str]:
    """One entry of a definition list: a table of four columns is not readable on a phone."""
    return [f"`{term}`{f' <small>{note}</small>' if note else ''}", f":   {_prose(meaning) or '&nbsp;'}", ""]


def _prose(text: str) -> str:
    """One paragraph, in which only code may contain `<`."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    joined = "".join(
        part if part.startswith("`") else part.replace("<", "&lt;").replace("*", r"\*") for part in parts
    )
    return joined[:1].upper() + joined[1:] if re.match(r"[a-z]+[ ,:.]", joined) else joined
