"""Evidence on one machine: Envoy's counters, the customers whose requests failed, and the prediction log."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from rollout.config import RolloutConfig
from rollout.evidence import Arm, Evidence, Window
from rollout.observers.envoy_stats import between, totals
from rollout.observers.failures import Failing, FailureReader
from rollout.observers.log_rows import Labels
from rollout.observers.observer import Opened
from rollout.observers.prediction_log import Logged, LogSource, PredictionLogReader
from rollout.rules.latency import Latency
from serving.gateway.process import Gateway


class LiveObserver:
    """`log`: of predictions. None where none is written: then Envoy's counts are all.

    `clock_offset`: by how much the workers' clock is ahead of the controller's. `labels`: Parquet of
    outcomes, which may appear and grow during the rollout; `horizon`: how far predictions look ahead
    (log_rows.py, Labels).
    """

    def __init__(
        self,
        gateway: Gateway,
        log: LogSource | None,
        config: RolloutConfig,
        clock_offset: timedelta = timedelta(0),
        labels: Path | None = None,
        horizon: timedelta = timedelta(0),
    ) -> None:
        self._gateway = gateway
        self._objective_ms = (config.rules.latency or Latency()).objective_ms
        outcomes = None if labels is None else Labels(labels, horizon, clock_offset)
        self._log = None if log is None else PredictionLogReader(log, config.segments, clock_offset, outcomes)
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
        self._failures.read(self._gateway.failures)
        # where the counters at the end of a window could not be read, those at the next one's beginning are
        # its end
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
            # the file and the counters are not updated at the same moment
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
