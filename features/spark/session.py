"""Starts Spark, or takes the session that is there, with the settings that equal results need."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import FeatureError
from features.spark.config import SparkConfig

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_REMEDY = "or set features.engine: duckdb"
_MEANING = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # sums are added in the order of the rows, and memory does not grow with the number of customers
    "spark.sql.execution.useHashAggregate": "false",
    # both would cut partitions anew
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.parquet.mergeSchema": "false",
}
"""Settings on which results depend. `features.spark.conf` cannot change them."""
_START = {
    "spark.app.name": "churn features",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.rdd.compress": "true",
    "spark.io.compression.codec": "zstd",
    "spark.sql.catalogImplementation": "in-memory",
    # one address for S3, in the form that fsspec and data.store use
    "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
}
_LOCAL = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}


@contextmanager
def open_session(config: SparkConfig, spill: Path, partitions: int) -> Iterator["SparkSession"]:
    """A session of its own for one build: its views and SQL settings are not seen by others.

    `spill`: folder for what does not fit into memory, with a local master. `partitions`: of the customers.
    Spark is stopped at the end if it was started here. Raises FeatureError when it cannot be started, and
    for its errors within the block.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise FeatureError(
            "features.engine spark: PySpark is not installed; "
            f"`pip install 'churn-prediction[spark]'`, {_REMEDY}"
        ) from None
    # its text has the stack of the JVM; the error is raised anyway
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    running = SparkSession.getActiveSession()
    spark = running or _started(config, spill)
    try:
        session = spark.newSession()
        for name, value in {**_MEANING, "spark.sql.shuffle.partitions": str(partitions)}.items():
            session.conf.set(name, value)
        yield session
    except (PySparkException, Py4JError) as error:
        raise FeatureError(f"features.engine spark: {first_line(error)}; look at Spark's log") from None
    finally:
        if running is None:
            spark.stop()


def _started(config: SparkConfig, spill: Path) -> "SparkSession":
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    settings = {**_START, "spark.master": config.master, "spark.driver.memory": config.memory}
    settings["spark.sql.warehouse.dir"] = str(spill / "warehouse")
    if config.master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # else Spark warns about the host's name
        settings |= {**_LOCAL, "spark.local.dir": str(spill)}
    if config.packages:
        settings["spark.jars.packages"] = ",".join(config.packages)
    builder = SparkSession.builder
    for name, value in (settings | config.conf).items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except PySparkException as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise FeatureError(f"features.spark: {first_line(error)}; correct it, {_REMEDY}") from None
    except Exception as error:  # Py4J's error of a JVM that runs, and cannot make a context
        raise FeatureError(f"features.spark: {first_line(error)}; correct it, {_REMEDY}") from None
    raise FeatureError(
        "features.engine spark: Java could not be started; install OpenJDK 17 or newer (for example "
        f"`apt-get install openjdk-17-jre-headless`) and set JAVA_HOME to it, {_REMEDY}"
    ) from None


def first_line(error: Exception) -> str:
    """Spark's message, from its condition in brackets if it has one, without the stack of the JVM."""
    java = getattr(error, "java_exception", None)
    lines = str(java if java is not None else error).strip().split("\n")
    line = " ".join(lines[0].split()).rstrip(".;")
    condition = re.search(r"\[[A-Z][A-Z0-9_.]+\] .*", line)
    return condition.group() if condition else line
