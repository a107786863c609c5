"""A client of Envoy's admin API: runtime values, statistics, hosts and draining.

Envoy listens on a socket file of mode 600, because the API can stop Envoy and move its traffic.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from core.errors import ServingError

TIMEOUT_S = 5.0


class EnvoyAdmin:
    """Every call raises ServingError when Envoy does not answer or refuses it."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def ready(self) -> bool:
        """Whether Envoy has started and listens."""
        try:
            self._request("GET", "/ready")
        except ServingError:
            return False
        return True

    def runtime(self) -> dict[str, str]:
        """The runtime values that are set: key -> value."""
        entries = json.loads(self._request("GET", "/runtime", {"format": "json"}))["entries"]
        return {key: str(entry.get("final_value") or "") for key, entry in entries.items()}

    def set_runtime(self, values: Mapping[str, int]) -> None:
        """Set runtime values, which apply to every request from now on."""
        self._request("POST", "/runtime_modify", values)

    def stats(self, pattern: str) -> dict[str, Any]:
        """Envoy's counters and gauges whose names the regular expression matches: name -> value.

        Under the key `histograms`: name -> histogram with the cumulative counts of its buckets.
        """
        answer = self._request(
            "GET", "/stats", {"format": "json", "filter": pattern, "histogram_buckets": "cumulative"}
        )
        found: dict[str, Any] = {"histograms": {}}
        for entry in json.loads(answer)["stats"]:
            if "histograms" in entry:
                found["histograms"] = {one["name"]: one for one in entry["histograms"]}
            else:
                found[entry["name"]] = entry["value"]
        return found

    def hosts(self) -> dict[str, dict[int, str]]:
        """Cluster -> port of each host -> HEALTHY or FAILING, without the cluster of the admin API."""
        answer = self._request("GET", "/clusters", {"format": "json"})
        return {
            status["name"]: {
                int(host["address"]["socket_address"]["port_value"]): _health(host)
                for host in status.get("host_statuses", ())
            }
            for status in json.loads(answer)["cluster_statuses"]
            if status["name"] != "admin"
        }

    def drain(self) -> None:
        """Close the listeners. Each answer is then the last on its connection, and readiness is 503."""
        self._request("POST", "/drain_listeners")
        self._request("POST", "/healthcheck/fail")

    def reopen_logs(self) -> None:
        """Write to new log files, after the present ones were moved away."""
        self._request("POST", "/reopen_logs")

    def _request(self, method: str, path: str, params: Mapping[str, Any] | None = None) -> str:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://envoy", timeout=TIMEOUT_S
        ) as client:
            try:
                answer = client.request(method, path, params=params)
            except httpx.TransportError as error:
                raise ServingError(f"the gateway's admin API does not answer: {error}") from None
        if answer.status_code != 200:
            raise ServingError(f"the gateway refused {path}: {answer.status_code} {answer.text.strip()}")
        return answer.text


def _health(host: Mapping[str, Any]) -> str:
    failing = ("failed_active_health_check", "pending_active_hc")
    return "FAILING" if any(host["health_status"].get(flag) for flag in failing) else "HEALTHY"
