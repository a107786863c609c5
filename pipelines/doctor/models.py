"""Checks that the archive can be served, and that registry, database and server agree on the model."""

import errno
import socket
from datetime import timedelta
from pathlib import Path

from core.errors import ArchiveError, ServingError
from pipelines.context import Stages
from pipelines.doctor.check import Installation, Result, broken, ok, warning
from pipelines.doctor.stores import sqlite_file, unreachable
from rollout.targets.target import Candidate


def archive(installation: Installation) -> Result:
    """The archive that was packaged last has its signature, its parts, gates that passed and its features."""
    from pipelines.candidates import refuse_offline
    from pipelines.live import archive_record
    from pipelines.verified import verified

    if not installation.files.archive_record.exists():
        return warning("nothing is packaged yet", "churn run")
    record = archive_record(installation.files)
    found = verified(installation.settings, Path(record["path"]), record["sha256"])
    configured = installation.settings.features
    if found.spec_digest != configured.digest():
        try:
            refuse_offline(installation.settings, found)
        except ArchiveError as error:
            return broken(str(error), "churn run, or configure the features of the archive")
    return ok(f"version {found.version}, sha256 {found.sha256[:12]}, signed by {found.signer}, gates passed")


def champion(installation: Installation) -> Result:
    """The registry's champion is the archive that the database of rollouts records as stable."""
    from training.registry.model_registry import Registry

    settings = installation.settings
    if fault := unreachable(settings.training.tracking_uri):
        return broken(fault, "start the MLflow server")
    version, stable = Registry(settings.training).champion(), _stable(settings)
    if stable is None and version is None:
        return ok("no model is in service yet")
    if stable is None:
        assert version is not None
        return ok(f"champion is version {version.number}; churn serve will record it as stable")
    remedy = "churn serve (or churn rollout run): the controller corrects the registry"
    if version is None:
        return warning(f"stable is {stable.version}, and the registry has no champion", remedy)
    if version.tags.get("archive_sha256") != stable.sha256:
        return warning(
            f"champion is version {version.number} (model {version.tags.get('model_version')}), stable is"
            f" model {stable.version}",
            remedy,
        )
    return ok(f"version {version.number} (model {stable.version}) is champion and stable")


def checks(installation: Installation) -> Result:
    """The monitor has run lately, and no training was left open by a crash."""
    from monitoring.stored import MonitorStore
    from retraining.ledger import Ledger

    settings = installation.settings
    uri, model = settings.rollout.database, settings.serving.model_name
    if (file := sqlite_file(uri)) is not None and not file.is_file():
        return ok("no check has been made yet: churn monitor")
    if fault := unreachable(uri):
        return broken(fault, "start the database, or correct rollout.database")
    run = Ledger(uri).active(model)
    if run is not None:
        return warning(
            f"training {run.id} is open since {run.started:%Y-%m-%d %H:%M} UTC", "churn retrain resume"
        )
    newest = MonitorStore(uri).newest(model)
    if newest is None:
        return ok("no check has been made yet: churn monitor")
    age = installation.clock() - newest.at
    if age > 2 * timedelta(days=settings.monitoring.every_days):
        return warning(f"the newest check is of {newest.at:%Y-%m-%d}, {age.days} days ago", "churn monitor")
    return ok(f"the newest check is of {newest.at:%Y-%m-%d}; no training is open")


def server(installation: Installation) -> Result:
    """What serves on this machine is the archive that is recorded as stable, and it answers."""
    from serving.client import running

    try:
        record = running(installation.files)
    except ServingError:
        return ok("no server of this workspace runs")
    stable = _stable(installation.settings)
    served = record.get("archive_sha256")
    if fault := unreachable(record["inference"]):
        return broken(f"process {record['pid']} runs, and does not answer: {fault}", "restart churn serve")
    if stable is not None and served and served != stable.sha256:
        return broken(
            f"serves archive {served[:12]}, recorded as stable is {stable.sha256[:12]}",
            "churn rollout restore, or churn rollout adopt to record what serves",
        )
    return ok(f"process {record['pid']} answers at {record['inference']}")


def ports(installation: Installation) -> Result:
    """The configured ports are free, or in use by the server of this workspace."""
    from serving.client import running

    settings = installation.settings
    try:
        running(installation.files)
        return ok("in use by the server of this workspace")
    except ServingError:
        pass
    gateway = settings.gateway
    wanted = {"gateway.port": (gateway.host, gateway.port)} if gateway.enabled else {}
    serving = settings.serving
    wanted |= {
        f"serving.{name}": (serving.host, getattr(serving, name))
        for name in ("inference_port", "management_port", "metrics_port")
    }
    if settings.rollout.health_address:
        host, _, port = settings.rollout.health_address.rpartition(":")
        wanted["rollout.health_address"] = (host, int(port))
    taken = [(key, port) for key, (host, port) in wanted.items() if port and not _is_free(host, port)]
    if taken:
        names = ", ".join(f"{key} {port}" for key, port in taken)
        return broken(f"another program uses {names}", f"stop it, or --set {taken[0][0]}=PORT")
    fixed = [port for _, port in wanted.values() if port]
    return ok(f"free: {', '.join(map(str, fixed))}" if fixed else "the system chooses all ports")


def _stable(settings: Stages) -> Candidate | None:
    from pipelines.rollout import open_store

    file = sqlite_file(settings.rollout.database)
    if file is not None and not file.is_file():
        return None  # opening it would create it
    return open_store(settings).stable(settings.serving.model_name)


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
