"""A prediction request to the canary's own host, which no split applies to: does it answer?"""

from urllib.parse import urlsplit

import httpx

from handlers.identity import PROBE_HEADER, PROBE_ID, THROUGH_GATEWAY

TIMEOUT_S = 5.0


def unanswered(gateway_url: str, canary_url: str, model: str) -> str | None:
    """What is wrong with the answer; None: it is a prediction.

    `gateway_url`: of the ingress. `canary_url`: the canary's address in the ingress, of which only the host
    is used. The host needs no entry in DNS.
    """
    host = urlsplit(canary_url).netloc
    try:
        answer = httpx.post(
            f"{gateway_url.rstrip('/')}/v1/models/{model}:predict",
            json={"instances": [{"user_id": PROBE_ID}]},
            headers={"Host": host, PROBE_HEADER: THROUGH_GATEWAY},
            timeout=TIMEOUT_S,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        return f"{gateway_url} (rollout.kserve.gateway_url) does not answer for {host}: {error}"
    if answer.status_code == 200:
        return None
    return f"{host} answers {answer.status_code} to a question for a prediction"
