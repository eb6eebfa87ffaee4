"""What an outcome means where nobody must answer (``inverted = true``), such as a port behind a firewall."""

from __future__ import annotations

from servmon.model import FailureKind
from servmon.probes.base import Answer, ProbeFailed

_HEARD_FROM = frozenset(
    {FailureKind.STATUS, FailureKind.PATTERN, FailureKind.CONTENT, FailureKind.PROTOCOL, FailureKind.TLS}
)
_NOT_HEARD_FROM = frozenset(
    {FailureKind.TIMEOUT, FailureKind.REFUSED, FailureKind.RESET, FailureKind.UNREACHABLE, FailureKind.LOSS}
)


def was_heard(failed: ProbeFailed) -> bool:
    """Whether somebody is there, though not as it was expected."""
    return failed.kind in _HEARD_FROM or (failed.kind is FailureKind.LOSS and failed.response_ms is not None)


def inverted(outcome: Answer | ProbeFailed) -> Answer | ProbeFailed:
    """The outcome where nobody must answer: silence, refusal and unreachability are good; any word is not.

    What says nothing about the target (a name that does not resolve, a failure of ours) stays as it is.
    """
    if isinstance(outcome, Answer):
        message = "it answers, though it must not"
    elif was_heard(outcome):
        message = f"it answers, though it must not: {outcome.message}"
    elif outcome.kind in _NOT_HEARD_FROM:
        return Answer(None, outcome.phases, {**(outcome.details or {}), "silence": outcome.message})
    else:
        return outcome
    return ProbeFailed(
        FailureKind.CONTENT,
        message,
        response_ms=outcome.response_ms,
        phases=outcome.phases,
        details=outcome.details,
    )
