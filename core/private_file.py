"""Files that only their owner may read. A key is written once and atomically; a readable one is refused."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from core.errors import ChurnError


def make_private(path: Path, text: str) -> None:
    """Write `text` with mode 600 unless the file exists. Concurrent processes use the same content."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)  # mode 600 from the start
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(name)
    except FileExistsError:
        pass  # another process was first, and its content is used
    finally:
        Path(name).unlink(missing_ok=True)


def read_private(path: Path, what: str, refusal: Callable[[str], ChurnError]) -> str:
    """Return the text of the file. Raises `refusal` when it is unreadable, or other users may read it."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise refusal(f"{path}: the {what} is open to others (mode {mode:o}); run chmod 600 on it")
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise refusal(f"{path}: the {what} cannot be read ({type(error).__name__}); restore it") from None
