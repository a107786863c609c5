"""config.properties for one start of TorchServe: its ports, its archive and its sizes."""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from string import Template

from core.errors import ServingError
from serving.addresses import LOOPBACK_HOSTS, hold_port
from serving.config import ServingConfig

TEMPLATES = Path(__file__).resolve().parents[2] / "configs" / "torchserve"


@dataclass(frozen=True)
class Ports:
    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int
    worker: int


def choose_ports(config: ServingConfig) -> Ports:
    """The configured ports, and for the others free ones that the system chooses.

    Raises ServingError with the name of the setting when a configured port is in use or the host is not
    loopback.
    """
    if config.host not in LOOPBACK_HOSTS:
        raise ServingError(
            f"serving.host {config.host}: TorchServe listens on this machine only; "
            "use 127.0.0.1, and gateway.host for others"
        )
    with ExitStack() as held:  # all held at the same time, so that no two are equal

        def port(key: str = "") -> int:
            wanted = int(getattr(config, key)) if key else 0
            return int(held.enter_context(hold_port(wanted, f"serving.{key}")).getsockname()[1])

        return Ports(
            inference=port("inference_port"),
            management=port("management_port"),
            metrics=port("metrics_port"),
            grpc_inference=port(),
            grpc_management=port(),
            worker=port(),
        )


def properties(config: ServingConfig, ports: Ports, archive: Path, version: str) -> str:
    """The text of config.properties that loads the file `archive` with this version of the model."""
    store = str(archive.parent)
    values = {
        **{f"{name}_port": value for name, value in vars(ports).items()},
        "model_store": store,
        "model_name": config.model_name,
        "archive": archive.name,
        "allowed_urls": f"file://{_literal(store)}/.*",
        "models": models_property(config, archive.name, version),
        "response_timeout_s": config.response_timeout_s,
        "start_timeout_s": int(config.start_timeout_s),
        "job_queue_size": config.job_queue_size,
        "max_request_bytes": config.max_request_bytes,
        "metrics_config": TEMPLATES / "metrics.yaml",
        "token_minutes": config.token_days * 24 * 60,
    }
    template = Template((TEMPLATES / "config.properties").read_text(encoding="utf-8"))
    return template.substitute({name: _escaped(str(value)) for name, value in values.items()})


def models_property(config: ServingConfig, archive: str, version: str) -> str:
    """The property `models`: the sizes for this version of the model, in the file of this name."""
    sizes = {
        "defaultVersion": True,
        "marName": archive,
        "minWorkers": config.workers,
        "maxWorkers": config.workers,
        "batchSize": config.batching.batch_size,
        "maxBatchDelay": config.batching.max_batch_delay_ms,
        "responseTimeout": config.response_timeout_s,
    }
    return json.dumps({config.model_name: {version: sizes}})


def _literal(path: str) -> str:
    """`path` as a Java regular expression that matches nothing else."""
    return "".join(c if c.isalnum() or c in "/_-" else f"\\{c}" for c in path)


def _escaped(value: str) -> str:
    """A value in a Java properties file: backslashes doubled, anything but ASCII as \\uXXXX."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    pairs = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return "".join(chr(unit) if unit < 128 else f"\\u{unit:04x}" for unit in pairs)
