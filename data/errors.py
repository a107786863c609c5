"""Errors that a person can act on. The command line prints one line and exits with the code."""

from collections.abc import Mapping, Sequence


class ChurnError(Exception):
    """Base of all errors with a remedy in their message.

    `table` holds the details when one line cannot: rows with the same keys, for the command line to render.
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
    """The model was judged and refused."""

    exit_code = 3


class PackagingError(ChurnError):
    exit_code = 1


class ArchiveError(PackagingError):
    """An archive that must not be served or registered: changed, unsigned, or of a signer nobody trusts."""

    exit_code = 2


class ServingError(ChurnError):
    exit_code = 1
