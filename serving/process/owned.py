"""A server process that ends when this process ends; used for TorchServe, Envoy and the dashboards."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

REAPER = Path(__file__).with_name("reaper.py")
STOP_TIMEOUT_S = 15


class OwnedProcess:
    """One command under `reaper.py`. However it or this process ends, its whole process group is ended and
    the paths `remove` are removed.

    `scratch` is a private folder (mode 0700), in which the command runs and which is removed too.
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
            # Ctrl-C in the terminal reaches only this process, which stops the server
            start_new_session=True,
        )
        assert self._reaper.stdout is not None
        self.pid = int(self._reaper.stdout.readline() or 0)

    @property
    def alive(self) -> bool:
        return self._reaper is not None and self._reaper.poll() is None

    def stop(self) -> None:
        """End the command and everything that it started, before this returns."""
        reaper, self._reaper = self._reaper, None
        if reaper is not None:
            for pipe in (reaper.stdin, reaper.stdout):
                if pipe is not None:
                    pipe.close()  # the reaper ends its command when this pipe closes
            try:
                reaper.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                reaper.kill()  # the kernel then ends its command too
                reaper.wait()
        for path in self._remove:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
