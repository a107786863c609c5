"""Starts servers that outlive this process, and stops those alone: no other process that has the same id."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.workspace import write_atomically
from deploy.loopback.place import Place, StoreError

CHECK_S = 0.1


@dataclass(frozen=True)
class Launch:
    """How one server is started."""

    command: Sequence[str]
    folder: Path
    """Its working folder."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to PATH, HOME and LANG of this process: a server gets no password of another one."""
    account: str | None = None
    """Of another account than this process."""
    stop_signal: signal.Signals = signal.SIGTERM


@dataclass(frozen=True)
class Started:
    """One server: its process id, and the time of its start, which no later process of that id has."""

    pid: int
    began: int
    stop_signal: int

    @property
    def alive(self) -> bool:
        return _began(self.pid) == self.began

    def stop(self, patience_s: float) -> None:
        """End the process and its group: in order first, after `patience_s` by force."""
        if self.alive:
            os.kill(self.pid, self.stop_signal)
        deadline = time.monotonic() + patience_s
        while self.alive and time.monotonic() < deadline:
            time.sleep(CHECK_S)
        self.kill()

    def kill(self) -> None:
        """End the group at once, as a failing machine would."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        while self.alive:
            time.sleep(CHECK_S)


class Processes:
    """The servers that were started in one folder, as `processes.json` there records them."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._file = place.folder / "processes.json"

    def running(self, store: str) -> Started | None:
        recorded = self._read().get(store)
        started = None if recorded is None else Started(**recorded)
        return started if started is not None and started.alive else None

    def start(self, store: str, launch: Launch, is_ready: Callable[[], bool], patience_s: float) -> None:
        """Start the server, record it, and wait until it is ready.

        Raises StoreError with the end of its log when it ends before that, or takes longer.
        """
        log = self._place.log(store)
        log.parent.mkdir(exist_ok=True)
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(launch.command),
                cwd=launch.folder,
                env={**inherited, **launch.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=launch.account,
                start_new_session=True,
            )
        began = _began(process.pid)
        self._write({**self._read(), store: Started(process.pid, began or 0, launch.stop_signal).__dict__})
        deadline = time.monotonic() + patience_s
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                why = "ended" if process.poll() is not None else f"is not ready after {patience_s:g} s"
                raise StoreError(f"{store} {why}; see {log}: {_last_line(log)}")
            time.sleep(CHECK_S)

    def stop(self, store: str, patience_s: float, force: bool = False) -> bool:
        """Stop the server if it was started here and still runs; False otherwise. `force`: as by a crash."""
        started = self.running(store)
        if started is not None:
            started.kill() if force else started.stop(patience_s)
        self._write({name: recorded for name, recorded in self._read().items() if name != store})
        return started is not None

    def _read(self) -> dict[str, dict[str, int]]:
        try:
            return dict(json.loads(self._file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}

    def _write(self, content: Mapping[str, Mapping[str, int]]) -> None:
        write_atomically(self._file, json.dumps(content, indent=2))


def _began(pid: int) -> int | None:
    """The start of the process in ticks since boot; None when it has ended. A zombie has ended."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it is empty"
