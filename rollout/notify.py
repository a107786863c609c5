"""Notices of decisions to log, webhook and Slack. A sink that fails or hangs never delays a rollout."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from queue import Full, Queue
from threading import Thread
from typing import Any, Protocol

import httpx

from rollout.config import Notify as NotifyConfig
from rollout.records import event_record
from rollout.state import Event, Rollout

TIMEOUT_S = 3.0
"""For one message to one sink, including its answer."""
WAITING = 100
"""Notices in the queue of slow sinks; further ones are dropped and counted."""
SYMBOLS = {"roll_back": ":rewind:", "fall_back": ":rewind:", "promote": ":rocket:", "finish": ":tada:",
           "unreachable": ":warning:", "stuck": ":sos:", "pause": ":double_vertical_bar:"}  # fmt: skip

log = logging.getLogger("churn.rollout")


@dataclass(frozen=True)
class Notice:
    rollout: Rollout
    event: Event

    def record(self) -> dict[str, Any]:
        return {
            "rollout": self.rollout.id,
            "model": self.rollout.model,
            "candidate": asdict(self.rollout.candidate),
            **event_record(self.event),
        }

    @property
    def line(self) -> str:
        event = self.event
        what = event.action.replace("_", " ")
        return (
            f"{self.rollout.model} {self.rollout.candidate.version}: {what}, {event.weight} %: {event.reason}"
        )


Notify = Callable[[Notice], None]


def no_notice(notice: Notice) -> None:
    """Sends nothing."""


class Sink(Protocol):
    name: str

    def send(self, notice: Notice) -> None:
        """Raises OSError or httpx.HTTPError when it cannot be sent."""


class Log:
    name = "log"

    def send(self, notice: Notice) -> None:
        log.info("%s", notice.line)


class Webhook:
    """POSTs a notice as JSON; an answer of 200 to 299 is a success."""

    name = "webhook"

    def __init__(self, url: str) -> None:
        self._url = url

    def content(self, notice: Notice) -> dict[str, Any]:
        return notice.record()

    def send(self, notice: Notice) -> None:
        body = json.dumps(self.content(notice), allow_nan=False)
        headers = {"Content-Type": "application/json"}
        # streamed and not read, so that an endless answer does no harm
        with httpx.stream("POST", self._url, content=body, headers=headers, timeout=TIMEOUT_S) as answer:
            if not answer.is_success:
                raise httpx.HTTPError(f"answered {answer.status_code}")


class Slack(Webhook):
    """An incoming webhook of Slack:
    https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks"""

    name = "slack"

    def content(self, notice: Notice) -> dict[str, Any]:
        symbol = SYMBOLS.get(notice.event.action, ":arrow_forward:")
        text = notice.line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        context = f"rollout {notice.rollout.id} · {notice.event.at:%Y-%m-%d %H:%M:%S} UTC"
        return {
            "text": text,
            "blocks": [
                {"type": "section", "text": {"type": "mrkdwn", "text": f"{symbol} {text}"[:3000]}},
                {"type": "context", "elements": [{"type": "mrkdwn", "text": context}]},
            ],
        }


class Notifier:
    """Call it with a notice; it never waits. `close` waits for the notices in the queue."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self._waiting: Queue[Notice | None] = Queue(WAITING)
        self.sent: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.dropped = 0
        self._over = False
        self._thread = Thread(target=self._deliver, name="rollout-notices", daemon=True)
        self._thread.start()

    def __call__(self, notice: Notice) -> None:
        try:
            self._waiting.put_nowait(notice)
        except Full:
            self.dropped += 1

    def close(self, seconds: float = 2 * TIMEOUT_S) -> None:
        try:
            self._waiting.put(None, timeout=seconds)
        except Full:
            self._over = True
            return
        self._thread.join(seconds)
        self._over = True

    def _deliver(self) -> None:
        while (notice := self._waiting.get()) is not None and not self._over:
            for sink in self._sinks:
                try:
                    sink.send(notice)
                except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
                    self.failed[sink.name] += 1
                    log.warning("%s got no notice: %s", sink.name, type(error).__name__)
                else:
                    self.sent[sink.name] += 1


def notifier(config: NotifyConfig) -> Notifier:
    sinks: list[Sink] = [Log()]
    if config.webhook:
        sinks.append(Webhook(config.webhook))
    if config.slack:
        sinks.append(Slack(config.slack))
    return Notifier(sinks)
