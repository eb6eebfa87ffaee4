"""HTTP and HTTPS: does the server answer a request, and as expected? A new connection for every check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.probes.base import Answer, Conclude, GiveUp, Options, ProbeFailed, Target
from servmon.probes.deadlines import Waiting
from servmon.probes.http_answer import SWITCHING_PROTOCOLS
from servmon.probes.http_journey import Journey
from servmon.probes.http_options import HttpOptions, check_secrets, ranges_of
from servmon.probes.network import ProbeContext
from servmon.probes.route import check_route
from servmon.probes.time_limit import TimeLimit
from servmon.probes.tls import check_tls

_FINAL = 200
_OF_THE_TEXT = ("forbidden_response_pattern", "expected_json")


class HttpProbe:
    """Send one request, follow redirects, and judge the answer's status, head and text."""

    protocol: ClassVar[str] = "HTTP"
    default_port: ClassVar[int | None] = 80
    options: ClassVar[type[Options]] = HttpOptions
    takes_socket: ClassVar[bool] = True

    def validate(self, target: Target, options: HttpOptions) -> None:
        """Refuse two expectations of one thing, and what can never be met. Raises ``InvalidInputError``."""
        if target.expected_status_code is not None and options.expected_status is not None:
            raise InvalidInputError.of(
                "expected_status", "excludes expected_status_code: one of them says what is right"
            )
        wanted = ranges_of(options.expected_status or str(target.expected_status_code or 200))
        if not any(last >= _FINAL or first <= SWITCHING_PROTOCOLS <= last for first, last in wanted):
            name = "expected_status" if options.expected_status else "expected_status_code"
            raise InvalidInputError.of(name, "can never be met: what begins with 1 (but 101) comes before the answer")
        if options.method == "HEAD" and options.body is not None:
            raise InvalidInputError.of("body", 'means nothing with method = "HEAD"; POST would send it')
        if options.method == "HEAD":
            of_text = ["expected_response_pattern"] if target.pattern is not None else []
            if of_text := of_text + [name for name in _OF_THE_TEXT if name in options.model_fields_set]:
                raise InvalidInputError.of(of_text[0], "cannot be found in the answer to HEAD, which is empty")
        check_route(target, options)
        if options.tls_server_name is not None and not target.url.startswith("https:"):
            raise InvalidInputError.of(
                "tls_server_name", "means nothing to http, which has no TLS; https would be right"
            )
        check_tls(options)
        check_secrets(options)

    async def check(self, target: Target, options: HttpOptions, context: ProbeContext) -> Answer:
        """Ask once. Raises ``ProbeFailed``: STATUS, PATTERN, CONTENT, TLS, PROTOCOL and those of connecting.

        ``response_ms`` is everything but looking names up: redirects, connecting, TLS, waiting, reading.
        """
        journey = Journey(target, options, context)
        return await journey.follow(journey.first())

    def begin(
        self, target: Target, options: HttpOptions, context: ProbeContext, told: Callable[[Conclude], None]
    ) -> GiveUp | None:
        """Ask without a task, where nothing has to be resolved and nobody waited for; what comes after may have one."""
        address = context.known_address(target.host)
        if address is None or not context.network.slots.take(address):
            return None
        return _Visit(Journey(target, options, context), address).begin(told)


class HttpsProbe(HttpProbe):
    """The same over TLS."""

    protocol: ClassVar[str] = "HTTPS"
    default_port: ClassVar[int | None] = 443


class _Visit:
    """The first exchange of a journey in the hands of callbacks, with its place at the address and its time limit.

    Where its answer takes more than a look at the status, a task goes on from there in the time that is left.
    """

    __slots__ = ("_address", "_ends_at", "_exchange", "_failure", "_journey", "_task", "_told", "_waiting")

    def __init__(self, journey: Journey, address: str) -> None:
        self._journey = journey
        self._address = address
        self._failure: ProbeFailed | None = None
        self._waiting: Waiting | None = None
        self._task: asyncio.Task[Answer] | None = None

    def begin(self, told: Callable[[Conclude], None]) -> GiveUp:
        """Set out, as ``Begin`` says."""
        journey, context = self._journey, self._journey.context
        self._told = told
        try:
            self._exchange = journey.first()
            self._exchange.address = self._address
            journey.begin(self._exchange, self._heard)
        except BaseException:
            context.network.slots.give_back(self._address)
            raise
        self._ends_at = SYSTEM_CLOCK.monotonic() + context.attempt_seconds
        self._waiting = context.network.deadlines.add(context.attempt_seconds, self, _Visit._time_is_up)
        return self.give_up

    def give_up(self) -> None:
        """Go no further, and tell nobody."""
        if self._waiting is not None:
            self._exchange.give_up()
            self._leave()
        elif self._task is not None:
            self._task.remove_done_callback(self._arrived)
            self._task.cancel()

    def _leave(self) -> None:
        if self._waiting is not None:
            self._waiting.pop(self, None)
            self._waiting = None
            self._journey.context.network.slots.give_back(self._address)

    def _time_is_up(self) -> None:
        self.give_up()
        self._told(_raise_timeout)

    def _heard(self, failure: ProbeFailed | None) -> None:
        self._leave()
        self._failure = failure
        if failure is None and self._journey.takes_more(self._exchange.answer):
            self._task = asyncio.get_running_loop().create_task(self._go_on())
            self._task.add_done_callback(self._arrived)
        else:
            self._told(self._conclude)

    def _conclude(self) -> Answer:
        self._journey.note(self._exchange, self._failure)
        return self._journey.settle()

    async def _go_on(self) -> Answer:
        journey, context = self._journey, self._journey.context
        with TimeLimit(self._ends_at - SYSTEM_CLOCK.monotonic(), context.network.deadlines) as context.attempt:
            journey.note(self._exchange, None)
            return await journey.follow(await journey.judge(self._exchange))

    def _arrived(self, task: asyncio.Task[Answer]) -> None:
        self._told(task.result)


def _raise_timeout() -> Answer:
    raise TimeoutError
