"""An archive whose stores only its own machine can read is refused before it reaches a cluster."""

import io
import zipfile

import pytest
import yaml

from core.errors import ArchiveError
from pipelines.cluster_fit import refuse_unfit

REDIS = {"type": "redis", "connection_string": "${CHURN_FEAST_ONLINE}"}
SQL = {"registry_type": "sql", "path": "${CHURN_FEAST_REGISTRY}"}


def archive(online: object, registry: object) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        store = {"project": "churn", "online_store": online, "registry": registry}
        packed.writestr("feature_store.yaml", yaml.safe_dump(store))
    return file.getvalue()


def test_redis_with_a_registry_in_postgresql_fits() -> None:
    refuse_unfit(archive(REDIS, SQL), "churn.mar")


@pytest.mark.parametrize(
    ("online", "registry", "field"),
    [
        ({"type": "sqlite", "path": "online.db"}, SQL, "features.online_store.type: sqlite"),
        (REDIS, "${CHURN_FEAST_REGISTRY}", "features.registry.registry_type: file"),
        (REDIS, {"registry_type": "s3", "path": "s3://b/r.db"}, "features.registry.registry_type: s3"),
    ],
)
def test_what_only_one_machine_reads_is_refused_with_the_remedy(
    online: object, registry: object, field: str
) -> None:
    with pytest.raises(ArchiveError, match="churn package") as refused:
        refuse_unfit(archive(online, registry), "churn.mar")
    assert field in str(refused.value) and "\n" not in str(refused.value)
