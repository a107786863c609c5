"""config.properties for one start of TorchServe: where it listens, what it loads, its sizes."""

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
    """The configured ports, and free ones of the system's choice for the rest.

    Raises ServingError that names the key when a configured port is taken or the host is not this machine.
    """
    if config.host not in LOOPBACK_HOSTS:
        raise ServingError(
            f"serving.host {config.host}: TorchServe listens on this machine only; "
            "use 127.0.0.1, and gateway.host for others"
        )
    with ExitStack() as held:  # all at once, so that no two are the same

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
    """The text of config.properties that loads the file `archive`, which holds this version of the model."""
    store = str(archive.parent)
    sizes = {
        "defaultVersion": True,
        "marName": archive.name,
        "minWorkers": config.workers,
        "maxWorkers": config.workers,
        "batchSize": config.batching.batch_size,
        "maxBatchDelay": config.batching.max_batch_delay_ms,
        "responseTimeout": config.response_timeout_s,
    }
    values = {
        **{f"{name}_port": value for name, value in vars(ports).items()},
        "model_store": store,
        "model_name": config.model_name,
        "archive": archive.name,
        "allowed_urls": f"file://{_literal(store)}/.*",
        "models": json.dumps({config.model_name: {version: sizes}}),
        "response_timeout_s": config.response_timeout_s,
        "start_timeout_s": int(config.start_timeout_s),
        "job_queue_size": config.job_queue_size,
        "max_request_bytes": config.max_request_bytes,
        "metrics_config": TEMPLATES / "metrics.yaml",
        "token_minutes": config.token_days * 24 * 60,
    }
    template = Template((TEMPLATES / "config.properties").read_text(encoding="utf-8"))
    return template.substitute({name: _escaped(str(value)) for name, value in values.items()})


def _literal(path: str) -> str:
    """`path` as a Java regular expression that matches nothing else."""
    return "".join(c if c.isalnum() or c in "/_-" else f"\\{c}" for c in path)


def _escaped(value: str) -> str:
    """A value in a Java properties file: backslashes doubled, anything but ASCII as \\uXXXX."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    pairs = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return "".join(chr(unit) if unit < 128 else f"\\u{unit:04x}" for unit in pairs)
