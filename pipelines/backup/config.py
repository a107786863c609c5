"""The schema of `configs/backup.yaml`."""

from core.config import Config


class BackupConfig(Config):
    store: str | None = None
    """A path or a URI such as `s3://backup/churn`. Content that is there already is not copied again."""
    key_env: str = "CHURN_BACKUP_KEY"
    """Name of the environment variable with 64 hexadecimal digits (`openssl rand -hex 32`), the key by which
    the workspace's private files are encrypted: the keys that mask, sign and authorise."""
    mlflow_database: str | None = None
    """Address of MLflow's database where `training.tracking_uri` is a server; null: the tracking URI."""
