"""Moves away the gateway's logs when they are large."""

from core.workspace import Workspace
from serving.gateway.key_use import KeyUse
from serving.gateway.process import Gateway

LOG_BYTES = 50_000_000


class LogRotation:
    def __init__(self, gateway: Gateway, files: Workspace) -> None:
        self._gateway, self._key_use = gateway, KeyUse(files)

    def rotate(self) -> bool:
        """Move away logs that are too large; True when there was one. Raises ServingError and OSError."""
        file = self._gateway.access_log
        is_large = file.exists() and file.stat().st_size > LOG_BYTES
        if is_large:
            file.replace(file.with_suffix(".1.log"))
        if is_full := self._key_use.full():
            self._key_use.fold()
        if is_large or is_full:
            self._gateway.admin.reopen_logs()
        return is_large or is_full
