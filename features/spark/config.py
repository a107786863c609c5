"""The settings of the engine Spark. This module imports nothing of Spark, which is an extra."""

import re

from pydantic import Field, field_validator

from core.config import Config

_SECRET = re.compile(r"secret|password|token|access\.key|account\.key", re.IGNORECASE)


class SparkConfig(Config):
    """Used when `features.engine` is `spark`."""

    master: str = "local[*]"
    """Spark's master: `local[N]`, `spark://...`, `k8s://...` or `yarn`. Ignored where a session exists
    already, as in a notebook or a job of a managed platform."""
    memory: str = Field("4g", pattern=r"^[1-9][0-9]*[mg]$")
    """Heap of the driver, for example 4g. With a local master all work is done in it."""
    packages: tuple[str, ...] = ()
    """Maven coordinates that Spark fetches when it starts, for example the file system of S3:
    `org.apache.hadoop:hadoop-aws:3.4.2`. Its version has to be that of Spark's Hadoop."""
    conf: dict[str, str] = Field({})
    """Further settings of Spark, by their names. Settings of a run are recorded, so a name of a secret is
    refused: credentials come from the environment, a role, or spark-defaults.conf."""
    records: str | None = None
    """Where the executors read the records: the URI of `data.store`. Default: the workspace, which then has
    to be at the same path on every executor."""
    exchange: str | None = None
    """URI of a folder that the executors write and this process reads, for the parts of one build, which
    are removed afterwards. Default: the workspace, as above."""

    @field_validator("conf")
    @classmethod
    def _refuse_secrets(cls, conf: dict[str, str]) -> dict[str, str]:
        if secret := sorted(name for name in conf if _SECRET.search(name)):
            raise ValueError(
                f"{secret[0]}: settings are recorded with each run; give it by the environment (such as "
                "AWS_SECRET_ACCESS_KEY), a role or spark-defaults.conf"
            )
        return conf
