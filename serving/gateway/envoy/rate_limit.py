"""Rate limits: a bucket of tokens for each API key, or for each address where keys are off."""

from typing import Any

from serving.config import GatewayConfig
from serving.gateway.envoy.api import KEYS_FILTER
from serving.gateway.keys import Key

COST = 1000
"""Tokens that a request costs a key without a quota of its own."""
LARGEST_NUMBER_OF_BUCKETS = 65_536


def request_cost(key: Key, config: GatewayConfig) -> int:
    """Tokens that a request of this key costs.

    All buckets have one size, COST tokens for each request of `gateway.requests_per_s`. A key with half of
    that quota pays twice as much for a request, so that its burst is half as large too.
    """
    if key.requests_per_s is None:
        return COST
    cost = round(COST * config.requests_per_s / key.requests_per_s)
    return max(1, min(cost, config.burst * COST))


def rate_limit(config: GatewayConfig) -> dict[str, Any]:
    """The settings of Envoy's filter."""
    bucket = {
        "max_tokens": config.burst * COST,
        "tokens_per_fill": config.requests_per_s * COST,
        "fill_interval": "1s",
    }
    by_key = {
        "metadata": {
            "descriptor_key": "who",
            "metadata_key": {"key": KEYS_FILTER, "path": [{"key": "name"}]},
            "source": "DYNAMIC",
        }
    }
    by_address: dict[str, Any] = {"remote_address": {}}
    cost_of_key = f"%DYNAMIC_METADATA({KEYS_FILTER}:cost)%"
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "stat_prefix": "rate",
        # for requests that no bucket below counts: open paths
        "token_bucket": bucket,
        "always_consume_default_token_bucket": False,
        "filter_enabled": {"runtime_key": "churn.rate.enabled", **always},
        "filter_enforced": {"runtime_key": "churn.rate.enforced", **always},
        "rate_limits": [
            {
                "actions": [by_key if config.keys else by_address],
                "hits_addend": {"format": cost_of_key} if config.keys else {"number": COST},
            }
        ],
        # the default is 20, and a bucket that was evicted is full when it returns
        "max_dynamic_descriptors": LARGEST_NUMBER_OF_BUCKETS,
        "descriptors": [
            {"entries": [{"key": "who" if config.keys else "remote_address"}], "token_bucket": bucket}
        ],
        "response_headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
        "rate_limited_as_resource_exhausted": True,
    }
