"""A lock that allows one command at a time to change a workspace."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import ChurnError
from core.workspace import Workspace


@contextmanager
def alone(files: Workspace, *, wait: bool = False) -> Iterator[None]:
    """Lock the workspace during the block. The kernel releases the lock when the process ends in any way.

    If it is locked already, `wait` until it is free; else raises ChurnError with the other process.
    """
    from filelock import FileLock, Timeout  # 40 ms that `churn --help` does not need

    files.root.mkdir(parents=True, exist_ok=True)
    holder = files.lock.with_name(".lock.pid")
    lock = FileLock(files.lock)
    try:
        lock.acquire(blocking=wait)
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
