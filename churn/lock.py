"""One command at a time changes a workspace."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from core.errors import ChurnError
from core.workspace import Workspace


@contextmanager
def alone(files: Workspace) -> Iterator[None]:
    """Hold the workspace. The kernel frees it when its holder dies, however it dies.

    Raises ChurnError that names the process which holds it.
    """
    files.root.mkdir(parents=True, exist_ok=True)
    holder = files.lock.with_name(".lock.pid")
    lock = FileLock(files.lock)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        pid = holder.read_text(encoding="utf-8") if holder.is_file() else "?"
        raise ChurnError(
            f"workspace {files.root} is in use by another churn command (process {pid});"
            " wait for it to end or choose another with --set workspace=DIR"
        ) from None
    try:
        holder.write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
