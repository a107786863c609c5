"""The settings of a worker, each an environment variable with a type, a range and a default.

`churn serve` sets a variable from the attribute of `serving.config.ServingConfig` with the same name
(serving/torchserve/command.py); a pod sets it in its manifest. Not here: the mask key (mask_key.py), TLS and
SASL of Kafka (records/settings.py), and the addresses in feature_store.yaml.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from handlers.bundle import BundleError

_Range = tuple[str, Callable[[float], bool]]
_ANY: _Range = ("a number", math.isfinite)
_POSITIVE: _Range = ("a number above 0", lambda value: value > 0)
_SHARE: _Range = ("a number from 0 to 1", lambda value: 0 <= value <= 1)


def _setting(default: Any, within: _Range = _ANY, variable: str = "") -> Any:
    """`variable`: its name, if it is not CHURN_ and the name of the setting in capital letters."""
    return field(default=default, metadata={"within": within, "variable": variable})


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker reads from its environment. An empty text means that the variable is not set."""

    max_instances: int = _setting(1000, _POSITIVE)
    """Customers in a request, at most."""
    max_request_bytes: int = _setting(1_048_576, _POSITIVE)
    """Bytes of a body after decompression, at most."""
    max_explained: int = _setting(20, _POSITIVE)
    """Customers in a request for reasons, at most."""
    batch_rows: int = _setting(65_536, _POSITIVE)
    """Rows that a batch may cost (protocol/budget.py)."""
    store_timeout_ms: float = _setting(250, _POSITIVE)
    """Deadline of a read of the online store."""
    clock_offset_s: float = _setting(0)
    """Seconds by which the worker's clock differs from the system's, for data of the past."""
    variant: str = _setting("stable")
    """Name of this server in the prediction log and in metrics."""
    prediction_log_folder: str = _setting("", variable="CHURN_PREDICTION_LOG")
    """Folder for Parquet segments of the prediction log."""
    prediction_log_window_s: float = _setting(5, _POSITIVE)
    """Time after which a segment is closed."""
    prediction_log_kafka: str = _setting("")
    """Instead of a folder: `host:port/topic`, or `host:port,host:port/topic`."""
    otel_endpoint: str = _setting("")
    """Base URL of an OTLP receiver over HTTP, `http://127.0.0.1:4318`; empty: no tracing."""
    otel_ratio: float = _setting(0.01, _SHARE)
    """Share of the requests without a `traceparent` that are traced."""


def variable_of(name: str) -> str:
    """The environment variable of a setting. Raises KeyError for a name that is no setting."""
    return _VARIABLES[name]


def variables(**values: object) -> dict[str, str]:
    """The environment variables that give these settings these values."""
    return {variable_of(name): str(value) for name, value in values.items()}


def variables_from(config: object) -> dict[str, str]:
    """The environment variables of all settings that `config` has as attributes that are not None."""
    found = {name: getattr(config, name, None) for name in _VARIABLES}
    return variables(**{name: value for name, value in found.items() if value is not None})


def read_settings(environment: Mapping[str, str]) -> WorkerSettings:
    """The settings in the environment. Raises BundleError with the name of an invalid variable."""
    return WorkerSettings(**{one.name: _read(environment, one) for one in fields(WorkerSettings)})


def _read(environment: Mapping[str, str], setting: Field[Any]) -> Any:
    variable = variable_of(setting.name)
    text = environment.get(variable)
    if setting.type is str:
        return text or setting.default
    if text is None:
        return setting.default
    expected, is_valid = setting.metadata["within"]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not is_valid(value):
        raise BundleError(f"{variable}: expected {expected}, found {text!r}")
    return int(value) if setting.type is int else value


_VARIABLES = {
    one.name: one.metadata["variable"] or f"CHURN_{one.name.upper()}" for one in fields(WorkerSettings)
}
