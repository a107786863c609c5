"""The environment variables that a started server gets: those on a list, and no others.

The environment of this process may contain the signing key, tokens of a registry and passwords of databases.
A server that gets requests needs none of them. pipelines/live.py passes on by name what it does need.
"""

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

SYSTEM = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ", "LD_LIBRARY_PATH")
"""Paths of programs, libraries and the user's files, and the formats of text and time."""
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
WORKER = (
    *SYSTEM,
    *CERTIFICATES,
    "CHURN_PREDICTION_LOG_KAFKA_*",  # TLS and SASL of the prediction log's broker
    "CHURN_STORE_*",
    "CHURN_BATCH_ROWS",  # values of the serving config have precedence
    "CHURN_MAX_*",
    "CHURN_OTEL*",
    "OTEL_*",
)
DASHBOARD = (
    *SYSTEM,
    *CERTIFICATES,
    *("TMPDIR", "DO_NOT_TRACK"),
    *("MLFLOW_*", "OPTUNA_*", "PG*", "AWS_*", "AZURE_*", "GOOGLE_*"),  # studies, runs and their artifacts
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""Dashboards read databases and stores that need credentials."""


def passed_on(patterns: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of `environment` (default: this process's) whose names match a pattern of the shell."""
    ours = os.environ if environment is None else environment
    return {
        name: value for name, value in ours.items() if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
