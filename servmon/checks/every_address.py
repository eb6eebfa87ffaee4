"""A name with several addresses of which each has to answer (``addresses = "all"``), and what that means together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address

from servmon.checks.inverted import was_heard
from servmon.model import OUR_FAILURES
from servmon.probes.base import Answer, ProbeFailed
from servmon.probes.network import ProbeContext

Outcome = Answer | ProbeFailed

# More of one name are not asked in one check: each takes a socket.
MOST_ADDRESSES = 32
_TOLD = 3


async def ask_every_address(
    host: str, context: ProbeContext, attempt: Callable[[ProbeContext], Awaitable[Outcome]]
) -> Outcome:
    """Make one ``attempt`` at each address of ``host``, all at once, and judge them together.

    ``attempt`` gets a context of its own for each, in which the host's address is pinned. Never raises.
    """
    try:
        addresses = sorted(await context.resolve_all(host), key=_in_order)[:MOST_ADDRESSES]
    except ProbeFailed as failed:
        return failed
    contexts = []
    for address in addresses:
        one = ProbeContext(context.network, context.deadline, context.route)
        one.pin(host, address)
        one.dns_ms = context.dns_ms
        contexts.append(one)
    outcomes = await asyncio.gather(*map(attempt, contexts))
    return together(dict(zip(addresses, outcomes, strict=True)))


def together(outcomes: Mapping[str, Outcome]) -> Outcome:
    """What the outcomes by address mean for the name: good only where every address is; failed where none answers."""
    answers = {address: one for address, one in outcomes.items() if isinstance(one, Answer)}
    failures = {address: one for address, one in outcomes.items() if isinstance(one, ProbeFailed)}
    if len(outcomes) == 1:
        return next(iter(outcomes.values()))
    if not answers:
        return _all_failed(failures)
    # The slowest, since it is what a customer gets who has bad luck.
    slowest = max(answers.values(), key=lambda answer: answer.response_ms or 0.0)
    details = {**(slowest.details or {}), "addresses": {address: address in answers for address in outcomes}}
    theirs = {address: one for address, one in failures.items() if one.kind not in OUR_FAILURES}
    degraded = next((f"{address}: {one.degraded}" for address, one in answers.items() if one.degraded), None)
    if theirs:
        fail = "fails" if len(theirs) == 1 else "fail"
        degraded = f"{len(theirs)} of {len(outcomes)} addresses {fail}: {_told(theirs)}"
    return replace(slowest, details=details, degraded=degraded)


def _all_failed(failures: Mapping[str, ProbeFailed]) -> ProbeFailed:
    ours = [one for one in failures.values() if one.kind in OUR_FAILURES]
    # One that said something, if any did: for what must not answer (``inverted``) that is one too many.
    first = ours[0] if ours else next(filter(was_heard, failures.values()), next(iter(failures.values())))
    return ProbeFailed(
        first.kind,
        first.message if ours else f"none of {len(failures)} addresses answers as it should: {_told(failures)}",
        response_ms=first.response_ms,
        phases=first.phases,
        details={**(first.details or {}), "addresses": dict.fromkeys(failures, False)},
    )


def _told(failures: Mapping[str, ProbeFailed]) -> str:
    told = [one.message if address in one.message else f"{address}: {one.message}" for address, one in failures.items()]
    return "; ".join(told[:_TOLD]) + (f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else "")


def _in_order(address: str) -> tuple[int, int]:
    parsed = ip_address(address)
    return parsed.version, int(parsed)
