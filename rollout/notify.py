"""Who gets notice of decisions: log, webhook, Slack. A sink that fails or hangs never stops a rollout."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from queue import Full, Queue
from threading import Thread
from typing import Any, Protocol

import httpx

from rollout.config import Notify
from rollout.records import event_record
from rollout.state import Event, Rollout

TIMEOUT_S = 3.0
"""For one message to one sink, its answer included."""
WAITING = 100
"""Messages for sinks that are slow; the next ones are dropped and counted."""
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


Tell = Callable[[Notice], None]


def silent(notice: Notice) -> None:
    """Tells nobody."""


class Sink(Protocol):
    name: str

    def send(self, notice: Notice) -> None:
        """Raises OSError or httpx.HTTPError when it could not."""


class Log:
    name = "log"

    def send(self, notice: Notice) -> None:
        log.info("%s", notice.line)


class Webhook:
    """POSTs a notice as JSON; any answer below 300 will do."""

    name = "webhook"

    def __init__(self, url: str) -> None:
        self._url = url

    def content(self, notice: Notice) -> dict[str, Any]:
        return notice.record()

    def send(self, notice: Notice) -> None:
        body = json.dumps(self.content(notice), allow_nan=False)
        headers = {"Content-Type": "application/json"}
        # streamed and not read: an answer that never ends is not waited for
        with httpx.stream("POST", self._url, content=body, headers=headers, timeout=TIMEOUT_S) as answer:
            if not answer.is_success:
                raise httpx.HTTPError(f"answered {answer.status_code}")


class Slack(Webhook):
    """An incoming webhook of Slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks"""

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
    """Call it with a notice; it never waits. `close` gives what is on its way a last chance."""

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


def notifier(config: Notify) -> Notifier:
    sinks: list[Sink] = [Log()]
    if config.webhook:
        sinks.append(Webhook(config.webhook))
    if config.slack:
        sinks.append(Slack(config.slack))
    return Notifier(sinks)
