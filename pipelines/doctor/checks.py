"""The list of checks, in the order in which a fault would be mended."""

from pipelines.doctor import machine, models, secret_files, stores
from pipelines.doctor.check import Named

CHECKS = (
    Named("python", machine.python),
    Named("packages", machine.packages),
    Named("java", machine.java),
    Named("envoy", machine.envoy),
    Named("workspace", machine.workspace),
    Named("disk", machine.disk),
    Named("clock", machine.clock),
    Named("modes of secrets", secret_files.modes),
    Named("mask key", secret_files.mask_key),
    Named("signing key", secret_files.signing_key),
    Named("API keys", secret_files.api_keys),
    Named("certificate", secret_files.certificate),
    Named("source", stores.source),
    Named("records", stores.records, timeout_s=120),
    Named("online store", stores.online_store),
    Named("registry", stores.registry),
    Named("study", stores.study),
    Named("rollouts", stores.rollouts),
    Named("prediction log", stores.prediction_log),
    Named("archive", models.archive),
    Named("champion and stable", models.champion),
    Named("monitor and training", models.checks),
    Named("server", models.server),
    Named("ports", models.ports),
)
