"""A server process that ends when ours does: what TorchServe, Envoy and the dashboards have in common."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

REAPER = Path(__file__).with_name("reaper.py")
STOP_TIMEOUT_S = 15


class OwnedProcess:
    """One command under `reaper.py`: whatever ends us or it, its whole process group and `remove` are gone.

    `scratch` is a folder of its own (mode 0700) that lives exactly as long; the command runs in it.
    """

    def __init__(self, prefix: str, remove: Sequence[Path] = ()) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix=prefix))
        self.pid = 0
        self._remove = (self.scratch, *remove)
        self._reaper: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], output: Path, environment: Mapping[str, str]) -> None:
        """Run `command` with its output appended to `output`."""
        output.parent.mkdir(parents=True, exist_ok=True)
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(REAPER), str(output), *map(str, self._remove), "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.scratch,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the server
        )
        assert self._reaper.stdout is not None
        self.pid = int(self._reaper.stdout.readline() or 0)

    @property
    def alive(self) -> bool:
        return self._reaper is not None and self._reaper.poll() is None

    def stop(self) -> None:
        """End the command and everything it started; done when this returns."""
        reaper, self._reaper = self._reaper, None
        if reaper is not None:
            for pipe in (reaper.stdin, reaper.stdout):
                if pipe is not None:
                    pipe.close()  # the reaper ends its command when this pipe closes
            try:
                reaper.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                reaper.kill()  # takes its command with it
                reaper.wait()
        for path in self._remove:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
