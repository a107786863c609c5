"""A constant rate of requests through the gateway, whether earlier ones have been answered or not."""

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import httpx

from core.workspace import Workspace

TIMEOUT_S = 10.0
OURS = "soak-"
"""With which the identifiers of the load's requests begin."""


@dataclass(frozen=True)
class Answer:
    """One request: when it was due, in Unix seconds, what it took, and what came back."""

    id: str
    at: float
    seconds: float
    status: int
    """Of HTTP; 0: no answer."""
    outcome: str
    """`ok`, `stale` and so on, as the answer says; or the kind of failure."""
    code: str = ""
    """Of a refusal (docs/serving.md)."""


@dataclass
class Load:
    """`rate` requests a second about `customers` in turn, from a thread of its own."""

    files: Workspace
    customers: Sequence[str]
    rate: float
    answers: list[Answer] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait for the answers that are due."""
        self._stopped.set()
        self._thread.join(TIMEOUT_S + 5)

    async def _send(self) -> None:
        url = json.loads((self.files.serving / "server.json").read_text())["gateway"]
        pending: set[asyncio.Task[None]] = set()
        begun = time.time()
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
            for number in count():
                due = begun + number / self.rate
                await asyncio.sleep(max(due - time.time(), 0))
                if self._stopped.is_set():
                    break
                task = asyncio.create_task(self._ask(client, number, due))
                pending.add(task)
                task.add_done_callback(pending.discard)
            await asyncio.gather(*pending)

    async def _ask(self, client: httpx.AsyncClient, number: int, due: float) -> None:
        customer, id = self.customers[number % len(self.customers)], f"{OURS}{number}"
        try:
            # read each time, since keys are rotated meanwhile
            headers = {"x-api-key": self.files.api_key.read_text().strip(), "x-request-id": id}
            answer = await client.post("/predictions/churn", json={"user_id": customer}, headers=headers)
            content, status = answer.json(), answer.status_code
            outcome, code = content.get("status" if status == 200 else "error", ""), content.get("code", "")
        except (httpx.HTTPError, OSError, ValueError) as error:
            status, outcome, code = 0, type(error).__name__, ""
        self.answers.append(Answer(id, due, time.time() - due, status, outcome, code))
