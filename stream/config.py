"""The schema of `configs/stream.yaml`."""

from pydantic import Field

from core.config import Config


class StreamConfig(Config):
    """Where purchases come from, and where their state is."""

    brokers: str | None = None
    """`host:port,host:port` of Kafka; null: `churn stream` is not used. TLS and SASL are the variables
    `CHURN_STREAM_KAFKA_SECURITY`, `_CA`, `_CERTIFICATE`, `_KEY`, `_MECHANISM`, `_USER` and `_PASSWORD` or
    `_PASSWORD_FILE`, as those of the prediction log (docs/serving.md)."""
    topic: str = Field("purchases", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """Each message is one purchase: a JSON object with the source's columns (`data.source`)."""
    dead_letters: str = Field("purchases.dead", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """The topic for messages that are no usable purchase, with the reason in a header."""
    group: str = Field("churn-stream", min_length=1)
    """Kafka's consumer group. Its members share the partitions."""
    state: str = "sqlite:///{workspace}/stream/state.db"
    """The database with the purchases of each customer: SQLAlchemy's URL, of PostgreSQL where several
    consumers run, on one or several machines."""
    identity: str | None = None
    """The field of a message that identifies the purchase, where the source has no `transaction_id`. Two
    messages with one identity are one purchase."""
    batch: int = Field(1000, gt=0, le=10_000)
    """Most purchases in a batch, which is one transaction and one push."""
    wait_ms: int = Field(200, gt=0, le=10_000)
    """How long a batch that is not full waits for more."""
    future_s: float = Field(60, ge=0, le=300)
    """A purchase may be so far ahead of this machine's clock; one further ahead is a dead letter. A server
    accepts vectors up to 300 s ahead."""
    longest_retry_s: float = Field(5, gt=0)
    """Longest wait between two tries while a store is away. The first wait is a tenth of a second."""
    address: str | None = "127.0.0.1:9097"
    """`host:port` of the page with Prometheus' metrics; null: none."""
