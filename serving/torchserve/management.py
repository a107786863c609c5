"""What TorchServe's management API reports of the model: its workers and the requests that wait for them."""

import http.client
import json
from dataclasses import dataclass, field
from typing import Any

from serving.addresses import LOOPBACK
from serving.torchserve.tokens import Tokens

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ManagementApi:
    port: int
    token: str = field(repr=False)
    model: str

    def ready_workers(self) -> int:
        """How many workers are ready; 0 when the API does not answer or the model is not loaded."""
        model = self._describe_model()
        return sum(worker["status"] == "READY" for worker in model.get("workers", ()))

    def waiting_requests(self) -> int:
        """How many requests wait for a worker; 0 when the API does not answer."""
        return int(self._describe_model().get("jobQueueStatus", {}).get("pendingRequests", 0))

    def _describe_model(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", f"/models/{self.model}", headers=Tokens.headers(self.token))
            answer = connection.getresponse()
            content = answer.read()
            return dict(json.loads(content)[0]) if answer.status == 200 else {}
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        finally:
            connection.close()
