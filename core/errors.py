"""Errors that a user can correct. The command line prints one line and exits with `exit_code`."""

from collections.abc import Mapping, Sequence


class ChurnError(Exception):
    """Base of all errors whose message contains a remedy.

    `table` holds details that do not fit on one line: rows with the same keys, which the command line prints.
    """

    exit_code = 1

    def __init__(self, message: str, table: Sequence[Mapping[str, object]] = ()) -> None:
        super().__init__(message)
        self.table = [dict(row) for row in table]


class ConfigError(ChurnError):
    exit_code = 2


class DataError(ChurnError):
    exit_code = 2


class FeatureError(ChurnError):
    exit_code = 2


class TrainingError(ChurnError):
    exit_code = 2


class GateFailure(ChurnError):
    """The model did not pass the gates."""

    exit_code = 3


class PackagingError(ChurnError):
    exit_code = 1


class ArchiveError(PackagingError):
    """An archive that must not be served or registered: changed, unsigned, or of an untrusted signer."""

    exit_code = 2


class ServingError(ChurnError):
    exit_code = 1


class MonitoringError(ChurnError):
    """A check of monitoring cannot be made from the data that are there."""


class ReplayError(ChurnError):
    """A replay of history that cannot be made from the data or settings that are there."""

    exit_code = 2
