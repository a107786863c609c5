"""Counters that Prometheus has scraped, read incrementally and added up by window.

Raw samples are added up here and not by `increase`, which extrapolates: the rules need whole requests. Each
look queries only what was scraped since the one before. A counter that falls was restarted. A series that
appears began at 0 where Prometheus had scraped its job for a while before, since pods start and stop with the
weights. Where it had not (it is new itself, or has lost its history), the first sample is the counter's
initial value.
"""

import math
import ssl
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from core.errors import ConfigError, ServingError
from rollout.config import PrometheusConfig
from rollout.observers.observer import Opened

LOOKBACK = timedelta(minutes=5)
"""How long before the first window samples are read, for the counters' values at its begin."""
OVERLAP = timedelta(minutes=1)
"""How late samples may be written, for example by a remote Prometheus."""
HISTORY_S = 60.0
"""How long a job must have been scraped before a series that is taken to have begun at 0."""
TIMEOUT_S = 10.0
NAME = "rollout.kserve.prometheus_url"

Labels = Mapping[str, str]


class PrometheusClient:
    """Instant queries. Secrets are read from their files at each query, since they may be rotated."""

    def __init__(self, url: str, config: PrometheusConfig) -> None:
        self._url, self._config = url.rstrip("/"), config
        try:
            self._tls = ssl.create_default_context(cafile=config.ca_file)
        except OSError as error:
            raise ConfigError(
                f"rollout.kserve.prometheus.ca_file: {config.ca_file}: {error.strerror or 'no certificate'}"
            ) from None

    def query(self, query: str, at: datetime | None = None) -> list[Any]:
        """Raises ServingError when Prometheus does not answer, or refuses."""
        content = {"query": query} | ({} if at is None else {"time": f"{at.timestamp():.3f}"})
        try:
            answer = httpx.post(
                f"{self._url}/api/v1/query",
                data=content,
                verify=self._tls,
                timeout=TIMEOUT_S,
                trust_env=False,
                **self._credentials(),
            )
            if answer.status_code in (401, 403):
                raise ServingError(
                    f"{self._url} ({NAME}): {answer.status_code}; see rollout.kserve.prometheus.token_file,"
                    " user and password_file"
                )
            found = answer.json()
            if found["status"] != "success":
                raise ServingError(f"{self._url} ({NAME}): {found.get('error')}")
            return list(found["data"]["result"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ServingError(f"{self._url} ({NAME}): does not answer as Prometheus does: {error}") from None

    def _credentials(self) -> dict[str, Any]:
        config = self._config
        if config.token_file is not None:
            return {"headers": {"Authorization": f"Bearer {_secret(config.token_file, 'token_file')}"}}
        if config.user is not None and config.password_file is not None:
            return {"auth": (config.user, _secret(config.password_file, "password_file"))}
        return {}


def _secret(file: Path, name: str) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServingError(f"rollout.kserve.prometheus.{name}: {file}: {type(error).__name__}") from None


@dataclass
class Counter:
    """One series: its labels, and the last sample that was read."""

    labels: Labels
    at: float = -math.inf
    value: float = 0.0
    grown: dict[int, float] = field(default_factory=dict)
    """Number of a window -> growth in it."""


class Series:
    """The counters that a selector matches."""

    def __init__(self, client: PrometheusClient, selector: str) -> None:
        self._client, self._selector = client, selector
        self._counters: dict[tuple[tuple[str, str], ...], Counter] = {}
        self._read_until: datetime | None = None
        self._scraped_since = math.inf
        self._targets: dict[tuple[str | None, ...], float] = {}
        """Unix seconds of each target's first sample."""
        self._begun: list[float] = []
        self.newest = -math.inf
        """Unix seconds of the last sample."""

    @property
    def counters(self) -> Sequence[Counter]:
        return list(self._counters.values())

    def read(self, windows: Sequence[Opened], now: datetime) -> None:
        """Read what was scraped since the last look. Raises ServingError."""
        begun = [window.begun.timestamp() for window in windows]
        if begun[: len(self._begun)] != self._begun:  # a window began anew: all is read again
            self._counters.clear()
            self._targets.clear()
            self._read_until, self._scraped_since = None, math.inf
        self._begun = begun
        since = windows[0].begun - LOOKBACK if self._read_until is None else self._read_until - OVERLAP
        span = max(1, math.ceil((now - since).total_seconds()))
        found = self._client.query(f"{self._selector}[{span}s]", now)
        samples = [
            (one["metric"], [(float(at), float(v)) for at, v in one["values"] if math.isfinite(float(v))])
            for one in found
        ]
        for labels, values in samples:
            if values:
                target, first = _target(labels), values[0][0]
                self._scraped_since = min(self._scraped_since, first)
                self._targets[target] = min(self._targets.get(target, first), first)
                self.newest = max(self.newest, values[-1][0])
        for labels, values in samples:
            self._take(labels, values)
        self._read_until = now

    def _take(self, labels: Labels, values: Sequence[tuple[float, float]]) -> None:
        key = tuple(sorted(labels.items()))
        counter = self._counters.setdefault(key, Counter(labels))
        for at, value in values:
            if at <= counter.at:
                continue
            if counter.at == -math.inf and not self._began_at_zero(labels, at):
                step = 0.0  # the value may be of days
            else:
                step = value - counter.value if value >= counter.value else value
            counter.at, counter.value = at, value
            window = bisect_right(self._begun, at, key=lambda begin: math.nextafter(begin, math.inf)) - 1
            if step and window >= 0:
                counter.grown[window] = counter.grown.get(window, 0.0) + step

    def _began_at_zero(self, labels: Labels, at: float) -> bool:
        """Whether its target was scraped before without it, or is itself new to a job that was scraped
        before."""
        return at > self._targets[_target(labels)] or at >= self._scraped_since + HISTORY_S


def _target(labels: Labels) -> tuple[str | None, ...]:
    return tuple(labels.get(name) for name in ("job", "instance", "pod"))


def summed(series: Sequence[Counter], window: int, name: str) -> int:
    """The growth of one metric's series in a window."""
    return round(sum(one.grown.get(window, 0.0) for one in series if one.labels["__name__"] == name))


def histogram(series: Sequence[Counter], window: int, name: str, to_ms: float) -> dict[float, int]:
    """Edge in ms -> requests that took at most so long; {} without any."""
    found: dict[float, float] = {}
    for one in series:
        if one.labels["__name__"] == name:
            edge = to_ms * float(one.labels["le"])
            found[edge] = found.get(edge, 0.0) + one.grown.get(window, 0.0)
    # a scrape may read a histogram while it is updated, so that it would fall along its edges
    edges = sorted(found)
    counts = np.maximum.accumulate(np.array([round(found[edge]) for edge in edges], dtype=np.int64))
    return dict(zip(edges, map(int, counts), strict=True)) if counts.any() else {}


def slower(latency: Mapping[float, int], objective_ms: float) -> int:
    """The requests of a histogram beyond the first edge at or above the objective."""
    measured = max(latency.values(), default=0)
    return measured - next((n for edge, n in sorted(latency.items()) if edge >= objective_ms), measured)
