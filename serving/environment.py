"""Which variables of our environment a server that we start is given: those on a list, and no other.

Ours may hold the signing key, tokens of a registry and passwords of databases. A server that faces requests
needs none of them; what it does need of ours is passed on by name (pipelines/live.py).
"""

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

SYSTEM = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ", "LD_LIBRARY_PATH")
"""Where programs, libraries and the user's files lie, and how text and time are written."""
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
WORKER = (
    *SYSTEM,
    *CERTIFICATES,
    "CHURN_PREDICTION_LOG_KAFKA_*",  # TLS and SASL of the prediction log's broker
    "CHURN_STORE_*",
    "CHURN_BATCH_ROWS",  # the serving config's own values go before these
    "CHURN_MAX_*",
    "CHURN_OTEL*",
    "OTEL_*",
)
DASHBOARD = (
    *SYSTEM,
    *CERTIFICATES,
    "TMPDIR",
    *("MLFLOW_*", "OPTUNA_*", "PG*", "AWS_*", "AZURE_*", "GOOGLE_*"),  # studies, runs and their artifacts
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""Dashboards read databases and stores that ask for credentials."""


def passed_on(patterns: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of `environment` (ours unless given) whose names match one of the shell's patterns."""
    ours = os.environ if environment is None else environment
    return {
        name: value for name, value in ours.items() if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
