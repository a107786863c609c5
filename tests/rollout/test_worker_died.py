"""What TorchServe says when a worker died over a request reaches nobody as an error of the request."""

from pathlib import Path

from support.servers.upstreams import split


def test_a_worker_s_death_is_a_503_that_says_when_to_come_back(tmp_path: Path) -> None:
    with split(tmp_path) as made:
        for status in (500, 503, 507):
            made.stable.status = status
            answer = made.client.post("/predictions/churn", json={"user_id": 1})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        for status in (200, 400, 404, 422):
            made.stable.status = status
            answer = made.client.post("/predictions/churn", json={"user_id": 1})
            assert (answer.status_code, "retry-after" in answer.headers) == (status, False)
