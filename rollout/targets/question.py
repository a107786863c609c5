"""Whether a canary answers: asked for a prediction by the host that is its own, past any split."""

from urllib.parse import urlsplit

import httpx

from handlers.identity import NOBODY, PROBE_HEADER, THROUGH_GATEWAY

TIMEOUT_S = 5.0


def unanswered(gateway_url: str, canary_url: str, model: str) -> str | None:
    """What is wrong with the answer; None: it is a prediction.

    `gateway_url` is where the ingress is reached, `canary_url` the address that it knows the canary by: only
    its host is used, which need not be known to anybody's DNS.
    """
    host = urlsplit(canary_url).netloc
    try:
        answer = httpx.post(
            f"{gateway_url.rstrip('/')}/v1/models/{model}:predict",
            json={"instances": [{"user_id": NOBODY}]},
            headers={"Host": host, PROBE_HEADER: THROUGH_GATEWAY},
            timeout=TIMEOUT_S,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        return f"{gateway_url} (rollout.kserve.gateway_url) does not answer for {host}: {error}"
    if answer.status_code == 200:
        return None
    return f"{host} answers {answer.status_code} to a question for a prediction"
