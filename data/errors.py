"""Errors that a person can act on. The command line prints the message as one line and exits with the code."""


class ChurnError(Exception):
    """Base of all errors with a remedy in their message."""

    exit_code = 1


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


class ServingError(ChurnError):
    exit_code = 1
