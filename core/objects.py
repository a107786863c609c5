"""Files in a store of objects or folders that fsspec reaches."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.addresses import masked
from core.errors import ChurnError


def is_local(store: Any) -> bool:
    protocol = store.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def put_file(store: Any, path: Path, target: str) -> None:
    """Copy a file to `target`. Raises OSError when it is not there with the same size afterwards."""
    if is_local(store):  # an object store has no folders
        store.makedirs(target.rpartition("/")[0], exist_ok=True)
    store.put_file(str(path), target)
    if store.info(target)["size"] != path.stat().st_size:
        raise OSError(f"{path.name} has another size there")


@contextmanager
def store_errors(key: str, uri: str, kind: type[ChurnError]) -> Iterator[None]:
    """Convert errors of a file system into a `kind` of one line. `key`: the setting with the URI."""
    try:
        yield
    except store_failures() as error:
        raise kind(
            f"{key}: {masked(uri)}: {reason(error)}; start it, make room, get access, or correct the address"
        ) from None


def store_failures() -> tuple[type[Exception], ...]:
    """What a store raises that does not answer or refuses, or whose address or driver is wrong."""
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # s3fs lets it through

    return (OSError, ValueError, ImportError, BotoCoreError)


def reason(error: Exception) -> str:
    """One line, without the full stop at its end."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
