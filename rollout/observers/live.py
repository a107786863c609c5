"""What Envoy counted, whose requests failed, and what the workers logged, as one Evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from rollout.config import Latency, RolloutConfig
from rollout.evidence import Arm, Evidence, Window
from rollout.observers.envoy_stats import between, totals
from rollout.observers.failures import Failing, FailureReader
from rollout.observers.observer import Opened
from rollout.observers.prediction_log import Logged, PredictionLogReader
from serving.gateway.process import Gateway


class LiveObserver:
    """`log`: the folder of the prediction log, None where it goes elsewhere: then Envoy's counts are all.

    `clock_offset`: what the workers' clock shows more than ours. `labels`: Parquet of user_id (masked),
    event_timestamp, churned, that may appear and grow while we look; `horizon`: how far predictions look
    ahead, so that an outcome belongs to the prediction of its customer that was made so long before.
    """

    def __init__(
        self,
        gateway: Gateway,
        log: Path | None,
        config: RolloutConfig,
        clock_offset: timedelta = timedelta(0),
        labels: Path | None = None,
        horizon: timedelta = timedelta(0),
    ) -> None:
        self._gateway = gateway
        self._objective_ms = (config.rules.latency or Latency()).objective_ms
        self._log = None if log is None else PredictionLogReader(log, config.segments, clock_offset)
        self._labels, self._horizon = labels, horizon
        self._failures = FailureReader()

    def mark(self) -> dict[str, float]:
        """Raises ServingError when Envoy does not answer."""
        return totals(self._gateway)

    def observe(self, windows: Sequence[Opened], now: datetime) -> Evidence:
        """Raises ServingError when Envoy does not answer or the log cannot be read."""
        if not windows:
            return Evidence()
        if self._log is not None:
            self._log.read(windows[0].begun)
            if self._labels is not None:
                self._log.labels(self._labels, self._horizon)
        self._failures.read(self._gateway.failures)
        # the end of a window that could not be counted is the next one's beginning
        following = [*(window.before for window in windows[1:]), self.mark()]
        failing = self._failures.failing(windows)
        return Evidence(
            tuple(
                self._window(window, window.after or end, customers, now)
                for window, end, customers in zip(windows, following, failing, strict=True)
            )
        )

    def _window(
        self, window: Opened, end: Mapping[str, float], failing: Failing | None, now: datetime
    ) -> Window:
        logged = Logged() if self._log is None else self._log.logged(window)

        def arm(variant: str, known: Arm) -> Arm:
            counts = between(window.before, end, variant, self._objective_ms)
            # a failure is in the file a moment before it is in the counters, or after
            customers = None if failing is None else min(getattr(failing, variant), counts.errors)
            return replace(known, **vars(counts), failing=customers)

        return Window(
            weight=window.weight,
            mirror=window.mirror,
            seconds=((window.ended or now) - window.begun).total_seconds(),
            stable=arm("stable", logged.stable),
            canary=arm("mirrored" if window.mirror else "canary", logged.canary),
            pairs=logged.pairs,
        )
