"""Whether the result of a step in a store, a database or an archive still exists.

A step is skipped when its inputs, its config and its code are unchanged. A database may have been deleted
since, so these functions check.
"""

import hashlib
import json
from pathlib import Path

from core.errors import TrainingError
from pipelines.context import Context
from pipelines.services import needed_services, registered


def features(context: Context) -> bool:
    """Whether the features of the other services that are needed were built for their specs."""
    from features.build import read_feature_manifest

    others = needed_services(context.settings, context.files)[1:]
    return all(
        one.files.feature_manifest.is_file()
        and read_feature_manifest(one.files)["spec_digest"] == one.spec.digest()
        for one in others
    )


def online_store(context: Context) -> bool:
    """Whether registry and online store exist, with the other services that are needed; from a store behind a
    network, one customer is read."""
    from features.store import serving_environment

    addresses = serving_environment(context.settings.features, context.files).values()
    files = [Path(address) for address in addresses if Path(address).is_absolute()]
    if not all(file.exists() for file in files):
        return False
    others = needed_services(context.settings, context.files)[1:]
    if others:
        online = registered(context.settings)
        if any(online.get(one.name) != one.spec.digest() for one in others):
            return False
    return len(files) == len(addresses) or _answers_about_a_customer(context)


def study(context: Context) -> bool:
    """Whether the database still contains the study whose best settings are used."""
    from training.tuning.slots import open_storage, storage_errors

    name = json.loads(context.files.tuned.read_text(encoding="utf-8"))["study"]
    if not name:
        return True
    tuning = context.settings.tuning
    database = tuning.storage.removeprefix("sqlite:///")
    if database != tuning.storage and not Path(database).is_file():
        return False  # Optuna would create it
    import optuna

    with storage_errors(tuning.storage):
        return name in optuna.get_all_study_names(open_storage(tuning))


def archive(context: Context) -> bool:
    """Whether the archive that was packaged last is in the store with its signature, and registered."""
    from training.archive.signing import signature_file
    from training.registry.model_registry import Registry

    record = json.loads(context.files.archive_record.read_text(encoding="utf-8"))
    file = Path(record["path"])
    if not (file.is_file() and signature_file(file).is_file()):
        return False
    if hashlib.sha256(file.read_bytes()).hexdigest() != record["sha256"]:
        return False
    try:
        registry = Registry(context.settings.training)
        known = registry.versions() if registry.exists else []
    except TrainingError:
        return False  # the step itself reports what is wrong with the server
    return any(version.tags.get("archive_sha256") == record["sha256"] for version in known)


def _answers_about_a_customer(context: Context) -> bool:
    from features.build import read_feature_manifest
    from features.newest import newest
    from features.parity import read_online
    from features.store import open_store

    spec, files = context.settings.features, context.files
    first = next(newest(spec, files, read_feature_manifest(files), ["user_id"]), None)
    if first is None:
        return True
    found = read_online(spec, open_store(spec, files), [first["user_id"][0].as_py()])
    return any(values[0] is not None for values in found.values())
