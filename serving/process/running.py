"""The parts that all servers of this project share: a `with` block at whose end they are stopped."""

from types import TracebackType

from serving.process.owned import OwnedProcess


class Stoppable:
    """Ends with its `with` block."""

    def stop(self) -> None:
        """End everything that was started, before this returns."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class ServerProcess(Stoppable):
    """A server that is one process with its descendants. `_process` is None before its first start."""

    _process: OwnedProcess | None = None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.alive

    def stop(self) -> None:
        """End the process and all processes that it started. Requests in flight are cut."""
        if self._process is not None:
            self._process.stop()
