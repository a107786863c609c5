"""The folder that KServe mounts at /mnt/models: one archive, and the config.properties that loads it."""

import shutil
from pathlib import Path
from string import Template

from serving.archive import read_archive
from serving.config import ServingConfig
from serving.torchserve.properties import TEMPLATES, models_property


def write_layout(config: ServingConfig, archive: Path, folder: Path) -> None:
    """Write `folder`/config/config.properties and `folder`/model-store/<model name>.mar with its signature.

    An archive without a signature is written without one. Raises ServingError when `archive` is not a model
    archive.
    """
    name = f"{config.model_name}.mar"
    for part in ("config", "model-store"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    text = mounted_properties(config, read_archive(archive).version)
    (folder / "config" / "config.properties").write_text(text, encoding="ascii")
    store = folder / "model-store"
    shutil.copyfile(archive, store / name)
    signature = archive.with_name(archive.name + ".sig")
    if signature.is_file():
        shutil.copyfile(signature, store / f"{name}.sig")


def mounted_properties(config: ServingConfig, version: str) -> str:
    """The text of config/config.properties for a model of this version."""
    name = f"{config.model_name}.mar"
    timeout_s = config.pod_response_timeout_s
    config = config.model_copy(update={"response_timeout_s": timeout_s})
    return Template((TEMPLATES / "kserve.properties").read_text(encoding="utf-8")).substitute(
        model_store="/mnt/models/model-store",
        model_name=config.model_name,
        archive=name,
        inference_address="0.0.0.0:8080",  # for KServe's own runtime; ours sets its own
        models=models_property(config, name, version),
        response_timeout_s=config.response_timeout_s,
        start_timeout_s=int(config.start_timeout_s),
        job_queue_size=config.job_queue_size,
        max_request_bytes=config.max_request_bytes,
    )
