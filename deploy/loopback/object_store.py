"""An S3 server: the gateway of JuiceFS over a folder; a bucket each for data, artifacts, models and backups.

It ignores conditional writes (`If-None-Match`), which this project does not use.
"""

import subprocess
from collections.abc import Mapping
from typing import Any

import httpx

from deploy.loopback.place import USER, Place, StoreError, program
from deploy.loopback.processes import Launch

NAME = "s3"
BUCKETS = ("churn-data", "churn-artifacts", "churn-models", "churn-backup")
READY_S, STOP_S = 30.0, 20.0
PACKAGE = "pip install -e '.[loopback]'"


def client_environment(place: Place) -> Mapping[str, str]:
    """What any client of S3 needs in its environment."""
    return {
        "AWS_ENDPOINT_URL": f"http://{place.address(NAME)}",
        "AWS_ACCESS_KEY_ID": USER,
        "AWS_SECRET_ACCESS_KEY": place.passwords[NAME],
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        # pyarrow and boto3 would send checksums in a form that this server answers with 411
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }


def prepare(place: Place) -> Launch:
    """Format the volume at the first call. Raises StoreError when that fails."""
    folder, juicefs = place.of(NAME), program("juicefs", place.python.parent, package=PACKAGE)
    folder.mkdir(exist_ok=True, mode=0o700)
    database = f"sqlite3://{folder / 'meta.db'}"
    if not (folder / "meta.db").exists():
        command = [
            juicefs,
            "format",
            "--storage",
            "file",
            "--bucket",
            f"{folder / 'objects'}/",
            database,
            USER,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StoreError(f"juicefs format: {done.stderr.strip().splitlines()[-1]}")
    command = [juicefs, "gateway", "--multi-buckets", "--keep-etag", "--no-usage-report", "--no-banner",
               "--cache-dir", str(folder / "cache"), database, place.address(NAME)]  # fmt: skip
    secrets = {"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": place.passwords[NAME]}
    return Launch(command, folder, secrets)


def is_ready(place: Place) -> bool:
    try:
        return httpx.get(f"http://{place.address(NAME)}/minio/health/live", trust_env=False).is_success
    except httpx.TransportError:
        return False


def settle(place: Place) -> None:
    """Create the buckets that do not exist yet."""
    files = file_system(place)
    for bucket in BUCKETS:
        files.makedirs(bucket, exist_ok=True)


def file_system(place: Place) -> Any:
    """The store by s3fs, with the addresses of this place and nothing from the environment."""
    import s3fs  # type: ignore[import-untyped]

    environment = client_environment(place)
    return s3fs.S3FileSystem(
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        client_kwargs={"region_name": environment["AWS_DEFAULT_REGION"]},
        skip_instance_cache=True,
        use_listings_cache=False,
    )
