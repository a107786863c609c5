"""What `configs/serving.yaml` may say."""

from pydantic import Field

from data.config import Config


class ServingConfig(Config):
    model_name: str = "churn"
    host: str = "127.0.0.1"
    inference_port: int = Field(0, ge=0, le=65535)
    management_port: int = Field(0, ge=0, le=65535)
    metrics_port: int = Field(0, ge=0, le=65535)
    """0: the system chooses."""
    workers: int = Field(1, gt=0)
    batch_size: int = Field(16, gt=0)
    max_batch_delay_ms: int = Field(1, gt=0)
    response_timeout_s: int = Field(60, gt=0)
    start_timeout_s: float = Field(90, gt=0)
    job_queue_size: int = Field(1000, gt=0)
    max_request_bytes: int = Field(1_048_576, gt=0)
    max_instances: int = Field(1000, gt=0)
    """Per request; more is refused with a 400."""
    heap: str = "256m"
