"""The command that starts TorchServe, and the environment of its workers."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from core.errors import ServingError
from handlers.settings import variables_from
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
    return {
        **passed_on((*WORKER, *config.pass_environment)),
        **variables_from(config),
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
