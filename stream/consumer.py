"""The consumer: reads batches, applies them, and commits their offsets afterwards.

| step | killed after it |
|---|---|
| read | the messages are read again |
| add to the state, with the vectors' time | purchases count once, their customers are pushed at the start |
| push | the same vectors are pushed again, with a later time |
| dead letters | they are written again, with the same origin |
| commit | nothing is left to do |
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from stream.errors import StoreAway
from stream.health import Health
from stream.measures import Measures
from stream.topic import Message
from stream.work import Work

log = logging.getLogger("churn.stream")

FIRST_RETRY_S = 0.1


class Source(Protocol):
    """What the consumer needs of `stream.topic.Topic`."""

    def read(self, most: int, seconds: float) -> list[Message]: ...
    def hold(self) -> None: ...
    def wait(self, seconds: float, pending: Sequence[Message]) -> list[Message]: ...
    def release(self) -> None: ...
    def commit(self, messages: Sequence[Message]) -> None: ...
    def bury(self, letters: Sequence[tuple[Message, str]]) -> None: ...
    def behind(self) -> int: ...


class StreamConsumer:
    def __init__(
        self,
        source: Source,
        work: Work[Any],
        measures: Measures,
        batch: int,
        wait_s: float,
        longest_retry_s: float,
        health: Health | None = None,
    ) -> None:
        self._source, self._work, self._measures = source, work, measures
        self._batch, self._wait_s, self._longest_retry_s = batch, wait_s, longest_retry_s
        self._health = health or Health()

    def run(self, is_over: Callable[[], bool]) -> None:
        """Until `is_over`. The batch that is being worked on is finished first, unless a store is away."""
        self._insist([], lambda _: self._recover(), is_over)
        while not is_over():
            self._health.beat()
            messages = self._source.read(self._batch, self._wait_s)
            self._measures.behind(self._source.behind())
            if messages:
                self._insist(messages, self._process, is_over)

    def _recover(self) -> None:
        if pushed := self._work.recover():
            log.warning("%d customers whose push was interrupted are pushed again", pushed)

    def _process(self, messages: Sequence[Message]) -> None:
        outcome = self._work.apply([one.value for one in messages])
        self._measures.online(messages)
        if outcome.refused:
            self._source.bury([(messages[at], reason) for at, reason in sorted(outcome.refused.items())])
        self._commit(messages)
        self._measures.batch(outcome)

    def _commit(self, messages: Sequence[Message]) -> None:
        try:
            self._source.commit(messages)
        except StoreAway as error:  # a later commit includes these offsets, or the messages are read again
            self._measures.failure("commit")
            log.warning("%s; the messages may be read again", error)

    def _insist(
        self,
        messages: Sequence[Message],
        act: Callable[[Sequence[Message]], None],
        is_over: Callable[[], bool],
    ) -> None:
        """Try until it succeeds. Meanwhile no message is read, and the membership of the group continues."""
        wait_s, failure = FIRST_RETRY_S, ""
        while True:
            self._health.beat()
            try:
                act(messages)
                self._health.trouble = ""
                break
            except StoreAway as error:
                self._measures.failure("store")
                if str(error) != failure:
                    log.warning("%s; trying again", error)
                if not failure:
                    self._source.hold()
                self._health.trouble = failure = str(error)
            if is_over():
                return
            had = bool(messages)
            messages = self._source.wait(wait_s, messages)
            if had and not messages:
                break  # another member has all of them
            wait_s = min(2 * wait_s, self._longest_retry_s)
        if failure:
            log.warning("continuing")
            self._source.release()
