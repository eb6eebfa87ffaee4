"""One question in the hands of callbacks, on a socket of its own: its time limit, its place, and who is told, once."""

from __future__ import annotations

from collections.abc import Callable

from servmon.probes.addresses import host_and_port
from servmon.probes.base import Answer, Conclude, GiveUp
from servmon.probes.connection import connect_failure
from servmon.probes.deadlines import Waiting
from servmon.probes.network import ProbeContext


class Asking:
    """What such questions have in common; ``leave`` is called when it is over, however it ends.

    Who asks says how: ``_set_out`` begins, ``_drop`` closes what that opened, ``conclude`` says what came of it.
    """

    __slots__ = ("_address", "_context", "_error", "_leave", "_place", "_port", "_told", "_waiting")

    def __init__(self, context: ProbeContext, address: str, port: int, leave: Callable[[], None] | None) -> None:
        self._context = context
        self._address = address
        self._port = port
        self._place = host_and_port(address, port)
        self._leave = leave
        self._error: OSError | None = None
        self._waiting: Waiting | None = None

    def begin(self, told: Callable[[Conclude], None]) -> GiveUp:
        """Set out, as ``Begin`` says."""
        self._told = told
        self._waiting = self._context.network.deadlines.add(self._context.attempt_seconds, self, Asking._time_is_up)
        try:
            self._set_out()
        except OSError as error:
            self._end(error.with_traceback(None))  # where it was raised we stand, too
        except BaseException:
            self.give_up()
            raise
        return self.give_up

    def give_up(self) -> None:
        """Wait no longer, and tell nobody."""
        if self._waiting is None:
            return
        self._waiting.pop(self, None)
        self._waiting = None
        self._drop()
        if self._leave is not None:
            self._leave()

    def conclude(self) -> Answer:
        """What came of it. Raises as ``Probe.check`` does."""
        raise NotImplementedError

    def _set_out(self) -> None:
        raise NotImplementedError

    def _drop(self) -> None:
        raise NotImplementedError

    def _time_is_up(self) -> None:
        self._end(TimeoutError())

    def _end(self, error: OSError | None = None) -> None:
        self._error = error
        self.give_up()
        # Who is told holds us as well: without this both would wait for the collector of garbage.
        told, self._told = self._told, _tell_nobody
        told(self.conclude)

    def _raise_failure(self) -> None:
        """Raise what it failed with, if it did: ``TimeoutError`` where the time limit ended it, else a finding."""
        error = self._error
        if error is not None:
            is_ours = isinstance(error, TimeoutError) and error.errno is None
            raise error if is_ours else connect_failure(error, self._place, self._context.doing)


def _tell_nobody(_conclude: Conclude) -> None:
    """Takes the place of who was told."""
