"""TorchServe's answer when a worker died is not reported to the client as an error of the request."""

from pathlib import Path

from support.servers.upstreams import split


def test_a_worker_s_death_is_a_503_with_retry_after(tmp_path: Path) -> None:
    with split(tmp_path) as made:
        for status in (500, 503, 507):
            made.stable.status = status
            answer = made.client.post("/predictions/churn", json={"user_id": 1})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        for status in (200, 400, 404, 422):
            made.stable.status = status
            answer = made.client.post("/predictions/churn", json={"user_id": 1})
            assert (answer.status_code, "retry-after" in answer.headers) == (status, False)
