"""The command that starts TorchServe, and the environment of its workers."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from core.errors import ServingError
from serving.config import ServingConfig
from serving.environment import WORKER, passed_on
from serving.torchserve.properties import TEMPLATES


def command(config: ServingConfig, java: Path, scratch: Path) -> list[str]:
    """`scratch`: the folder with config.properties and the model store. Raises ServingError."""
    home = _torchserve_home()
    return [
        *(str(java), f"-Xmx{config.heap}", f"-Djava.io.tmpdir={scratch}"),
        f"-Djava.util.concurrent.ForkJoinPool.common.parallelism={config.jvm_parallelism}",
        f"-Dlog4j.configurationFile=file://{TEMPLATES / 'log4j2.xml'}",
        f"-Dmodel_server_home={home}",
        *("-cp", str(home / "ts" / "frontend" / "*"), "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-f", str(scratch / "config.properties")),
        *("-s", str(scratch / "model-store"), "-ncs"),
    ]


def worker_environment(config: ServingConfig, java: Path, scratch: Path, logs: Path) -> Mapping[str, str]:
    tracing = config.tracing
    return {
        **passed_on((*WORKER, *config.pass_environment)),
        "CHURN_MAX_INSTANCES": str(config.max_instances),
        "CHURN_MAX_REQUEST_BYTES": str(config.max_request_bytes),
        "CHURN_MAX_EXPLAINED": str(config.max_explained),
        "CHURN_BATCH_ROWS": str(config.batch_rows),
        **({} if tracing.endpoint is None else {"CHURN_OTEL_ENDPOINT": tracing.endpoint}),
        **({} if tracing.endpoint is None else {"CHURN_OTEL_RATIO": str(tracing.sample_ratio)}),
        "OMP_NUM_THREADS": "1",
        "JAVA_HOME": str(java.parent.parent),
        "TMPDIR": str(scratch),
        "TEMP": str(scratch),
        "LOG_LOCATION": str(logs),
        "METRICS_LOCATION": str(logs),
    }


def _torchserve_home() -> Path:
    found = find_spec("ts")
    if found is None or found.origin is None:
        raise ServingError("TorchServe is not installed: pip install torchserve")
    return Path(found.origin).parent.parent
