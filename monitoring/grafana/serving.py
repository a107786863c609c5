"""Dashboard "Serving": requests, errors and times at the gateway and in the workers, features, log."""

from monitoring.grafana.panels import Dashboard, Panel, queries

RATE = "$__rate_interval"
PUBLIC = 'envoy_http_conn_manager_prefix="public"'


def by_version(metric: str, labels: str = "") -> str:
    """Rate of a worker's counter by version."""
    return f"sum by (model_version{labels}) (rate({metric}[{RATE}]))"


def quantile(share: float, histogram: str, by: str) -> str:
    """Quantile of a histogram by its buckets."""
    return f"histogram_quantile({share}, sum by (le{by}) (rate({histogram}[{RATE}])))"


SERVING = Dashboard(
    "churn-serving",
    "Churn: serving",
    "Whether clients get scores, how fast, and from which features.",
    (
        Panel(
            "Share of failed answers, gateway",
            queries(
                ("churn:gateway_errors:ratio_rate5m", "5 minutes"),
                ("churn:gateway_errors:ratio_rate1h", "1 hour"),
                ("churn:gateway_errors:ratio_rate6h", "6 hours"),
            ),
            "Objective: at most 0.1 % over 30 days. 503 with Retry-After counts.",
            "percentunit",
            limit=0.001,
        ),
        Panel(
            "Share of answers over 250 ms, gateway",
            queries(
                ("churn:gateway_slow:ratio_rate5m", "5 minutes"),
                ("churn:gateway_slow:ratio_rate1h", "1 hour"),
                ("churn:gateway_slow:ratio_rate6h", "6 hours"),
            ),
            "Objective: at most 1 % over 30 days.",
            "percentunit",
            limit=0.01,
        ),
        Panel(
            "Answers by status, gateway",
            queries(
                (
                    "sum by (envoy_response_code_class)"
                    f" (rate(envoy_http_downstream_rq_xx{{{PUBLIC}}}[{RATE}]))",
                    "{{envoy_response_code_class}}xx",
                )
            ),
            "4xx are errors of clients, 5xx are ours.",
            "reqps",
        ),
        Panel(
            "Answers by version and status, workers",
            queries((by_version("churn_requests_total", ", code"), "{{model_version}} {{code}}")),
            "While a rollout runs there are two versions.",
            "reqps",
        ),
        Panel(
            "Latency at the gateway",
            queries(
                (quantile(0.5, f"envoy_http_downstream_rq_time_bucket{{{PUBLIC}}}", ""), "p50"),
                (quantile(0.99, f"envoy_http_downstream_rq_time_bucket{{{PUBLIC}}}", ""), "p99"),
            ),
            "As clients see it: network of the client, queue and worker.",
            "ms",
            limit=250,
        ),
        Panel(
            "Latency in the worker",
            queries(
                (quantile(0.5, "churn_request_seconds_bucket", ", model_version"), "p50 {{model_version}}"),
                (quantile(0.99, "churn_request_seconds_bucket", ", model_version"), "p99 {{model_version}}"),
                (quantile(0.99, "churn_feature_read_seconds_bucket", ""), "p99 of the feature read"),
            ),
            "The rest of the gateway's latency is the queue.",
            "s",
            limit=0.25,
        ),
        Panel(
            "Customers by state of their features",
            queries((by_version("churn_feature_vectors_total", ", status"), "{{model_version}} {{status}}")),
            "stale and degraded point at the job that fills the store, or at the store.",
            "reqps",
        ),
        Panel(
            "Share of customers without fresh features",
            queries(("churn:features_not_fresh:ratio_rate15m", "{{model_version}}")),
            "Pages over 5 % for 15 minutes.",
            "percentunit",
            limit=0.05,
        ),
        Panel(
            "Age of features",
            queries((quantile(0.9, "churn_feature_age_seconds_bucket", ""), "p90")),
            "At most features.ttl_days.",
            "s",
        ),
        Panel(
            "Errors by kind",
            queries((by_version("churn_errors_total", ", kind"), "{{kind}}")),
            "bad_request is the client's, all others are ours.",
            "reqps",
        ),
        Panel(
            "Prediction log",
            queries(
                (by_version("churn_log_records_total", ", outcome"), "{{outcome}}"),
                ("sum(churn_log_waiting)", "waiting"),
            ),
            "dropped is 0 in a healthy system.",
        ),
        Panel(
            "Requests and customers in a batch",
            queries(
                (quantile(0.9, "churn_batch_requests_bucket", ""), "p90 requests"),
                (quantile(0.9, "churn_batch_customers_bucket", ""), "p90 customers"),
            ),
            "Larger batches answer more requests in a second, each more slowly.",
        ),
    ),
)
