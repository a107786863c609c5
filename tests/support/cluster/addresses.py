"""Stores that pods and this machine reach at the same addresses: those of environment variables, or servers
of this session on the address of this machine that pods reach.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import sqlalchemy

from deploy.loopback import environment, mlflow_server, object_store, postgresql, redis_server
from deploy.loopback.place import USER, Place
from support.servers.loopback import running_stores

STORES = ("redis", "postgres", "s3")
OWN = ("postgresql", "redis", "s3", "mlflow")
SERVE_IMAGE = "registry.example.com/churn-serve:1.0.0"


@dataclass(frozen=True)
class Addresses:
    gateway: str
    """CHURN_CLUSTER_GATEWAY: URL of the gateway, which routes by the Host header."""
    redis: str
    """CHURN_CLUSTER_REDIS: Feast's connection string."""
    postgres: str
    """CHURN_CLUSTER_POSTGRES: postgresql+psycopg://user:password@host:port[?parameters], with a database
    feast; the user may create databases."""
    s3: str
    """CHURN_CLUSTER_S3: http://key:secret@host:port/bucket."""
    prometheus: str
    """CHURN_CLUSTER_PROMETHEUS: URL; it labels samples with namespace and
    serving_kserve_io_inferenceservice. Empty: there is none."""
    image: str
    """CHURN_CLUSTER_SERVE_IMAGE: churn-serve, as the nodes know it."""
    controller_image: str = ""
    """CHURN_CLUSTER_TRAIN_IMAGE: churn-train. Empty: the controller runs on this machine."""
    mlflow: str = ""
    """URL, where the controller runs in a pod."""
    certificate: Path | None = None
    """Authority of stores of our own: pods have it at the same path."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the production profile, for stores of our own."""

    @property
    def store(self) -> str:
        return f"s3://{urlsplit(self.s3).path.strip('/')}"

    @property
    def aws(self) -> dict[str, str]:
        """The variables of an S3 client on this machine."""
        parts = urlsplit(self.s3)
        return {
            "AWS_ACCESS_KEY_ID": str(parts.username),
            "AWS_SECRET_ACCESS_KEY": str(parts.password),
            "AWS_ENDPOINT_URL": f"{parts.scheme}://{parts.hostname}:{parts.port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }

    def database(self, name: str) -> str:
        """SQLAlchemy's URL of a database."""
        server, _, parameters = self.postgres.partition("?")
        return f"{server}/{name}?{parameters}".rstrip("?")

    def administer(self, *statements: str) -> None:
        """Run SQL outside of any transaction."""
        engine = sqlalchemy.create_engine(self.database("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(sqlalchemy.text(statement))
        engine.dispose()

    def needs_prometheus(self) -> None:
        if not self.prometheus:
            pytest.skip("cluster: CHURN_CLUSTER_PROMETHEUS not set: rollouts have no evidence without it")


@contextmanager
def addresses() -> Iterator[Addresses]:
    """CHURN_CLUSTER_HERE: an address of this machine that pods reach. With it the stores are servers of this
    session; without it they are those of the variables."""
    gateway = os.environ.get("CHURN_CLUSTER_GATEWAY")
    if not gateway:
        pytest.skip("cluster: CHURN_CLUSTER_GATEWAY not set: docs/kubernetes.md says what it names")
    given = {name: os.environ.get(f"CHURN_CLUSTER_{name.upper()}", "") for name in STORES}
    found = Addresses(
        gateway=gateway,
        prometheus=os.environ.get("CHURN_CLUSTER_PROMETHEUS", ""),
        image=os.environ.get("CHURN_CLUSTER_SERVE_IMAGE", SERVE_IMAGE),
        **given,
    )
    if here := os.environ.get("CHURN_CLUSTER_HERE"):
        with running_stores(OWN, here) as place:
            yield replace(
                found,
                redis=redis_server.connection_string(place),
                postgres=_server(place),
                s3=f"http://{USER}:{place.passwords['s3']}@{place.address(object_store.NAME)}/churn-models",
                mlflow=f"http://{place.address(mlflow_server.NAME)}",
                controller_image=os.environ.get("CHURN_CLUSTER_TRAIN_IMAGE", ""),
                certificate=place.certificate,
                variables=environment.variables(place),
            )
    elif missing := [f"CHURN_CLUSTER_{name.upper()}" for name in STORES if not given[name]]:
        pytest.skip(
            f"cluster: neither CHURN_CLUSTER_HERE nor {', '.join(missing)} set: see docs/kubernetes.md"
        )
    else:
        yield found


def _server(place: Place) -> str:
    login = f"{USER}:{place.passwords[postgresql.NAME]}@{place.address(postgresql.NAME)}"
    certificate = quote(str(place.certificate), safe="/")
    return f"postgresql+psycopg://{login}?sslmode=verify-full&sslrootcert={certificate}"
