"""On which days a recurring window falls: RFC 5545 rules, bounded so that none of them is dear to follow.

The first occurrence has to fit its own rule. So no rule is accepted that never occurs, which is what makes looking
for the next occurrence cheap: dateutil would search until the year 9999.
"""

from __future__ import annotations

import re
from calendar import isleap, monthrange
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

from dateutil.rrule import DAILY, MONTHLY, WEEKLY, YEARLY, rrule, weekday

_FREQUENCIES = {"DAILY": DAILY, "WEEKLY": WEEKLY, "MONTHLY": MONTHLY, "YEARLY": YEARLY}
_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_BY_DAY = re.compile(r"([+-]?[0-9]{1,2})?(MO|TU|WE|TH|FR|SA|SU)")
_UNTIL = re.compile(r"([0-9]{8})(T[0-9]{6}(Z)?)?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,4}")
# Every weekday comes four times a month, so the first four of anything always exist.
_SURE_POSITIONS = 4
_LARGEST = {"INTERVAL": 1000, "COUNT": 1000}
EXAMPLE = "FREQ=WEEKLY;BYDAY=SU"
# A rule with COUNT has to be followed from its beginning.
EARLIEST_START = datetime(2000, 1, 1, tzinfo=UTC)
LONGEST_LIST = 5000
_OVERLAP_LOOKED_AT = 60
_FARTHEST_END = timedelta(days=3660)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, read: what dateutil is told, and the last local moment at which it occurs, if it says one."""

    frequency: int
    interval: int = 1
    count: int | None = None
    until: datetime | None = None
    by: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, day: date) -> bool:
        """Whether its parts (but for ``BYSETPOS``) allow ``day``."""
        months, month_days, days = (self.by.get(name) for name in ("bymonth", "bymonthday", "byweekday"))
        length = monthrange(day.year, day.month)[1]
        return (
            (not months or day.month in months)
            and (not month_days or day.day in month_days or day.day - length - 1 in month_days)
            and (not days or any(self._is_day(one, day) for one in days))
        )

    def _is_day(self, wanted: weekday, day: date) -> bool:
        if wanted.weekday != day.weekday():
            return False
        if not wanted.n:
            return True
        if self.frequency == YEARLY and "bymonth" not in self.by:
            number, length = day.timetuple().tm_yday, 366 if isleap(day.year) else 365
        else:
            number, length = day.day, monthrange(day.year, day.month)[1]
        return wanted.n in ((number - 1) // 7 + 1, -((length - number) // 7 + 1))


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A rule with its first moment: ``first`` in UTC, ``start`` the same second as a clock in ``zone`` shows it."""

    rule: Rule
    first: datetime
    start: datetime
    zone: ZoneInfo
    excluded: frozenset[date] = frozenset()

    def starts(self, since: datetime, until: datetime) -> Iterator[tuple[date, datetime]]:
        """The local day and the UTC time of each occurrence that begins in [since, until), at most 5,000.

        A local time that does not exist is taken by the offset from before the gap, one that comes twice is the first
        (RFC 5545, 3.3.5 and 3.8.5.3): no night is left out because the clock is changed in it.
        """
        number = 0
        for local in self._local_from(since.astimezone(self.zone).date() - timedelta(days=1)):
            at = self._in_utc(local)
            if at >= until or number >= LONGEST_LIST:
                return
            if at >= since and local.date() not in self.excluded:
                number += 1
                yield local.date(), at

    def occurs_on(self, day: date) -> bool:
        """Whether its rule, whatever is left out of it, has an occurrence on the local ``day``."""
        for local in self._local_from(day):
            if local.date() >= day:
                return local.date() == day
        return False

    def last_start(self) -> datetime | None:
        """The UTC start of the last occurrence; ``None`` where there is none, or it is more than ten years away."""
        if self.rule.count is None and self.rule.until is None:
            return None
        last = None
        for local in islice(self._local_from(self.start.date()), LONGEST_LIST):
            if local > self.start + _FARTHEST_END:
                return None
            last = local if local.date() not in self.excluded else last
        return self._in_utc(last) if last else None

    def _in_utc(self, local: datetime) -> datetime:
        if local == self.start:
            return self.first
        # Rules know whole seconds only.
        return local.replace(tzinfo=self.zone, microsecond=self.first.microsecond).astimezone(UTC)

    def _local_from(self, day: date) -> Iterator[datetime]:
        """What the rule gives, without its exceptions, from ``day`` or somewhat earlier on."""
        rule = self.rule
        if rule.until is not None and day > rule.until.date():
            return iter(())
        start = self.start if rule.count else self._skipped_to(day)
        return iter(rrule(rule.frequency, start, interval=rule.interval, count=rule.count, until=rule.until, **rule.by))

    def _skipped_to(self, day: date) -> datetime:
        """A beginning not after ``day`` (but for the first) that gives the same days: whole intervals are left out."""
        start, interval = self.start, self.rule.interval
        days = max((day - start.date()).days, 0)
        if self.rule.frequency == DAILY:
            return start + timedelta(days=days // interval * interval)
        if self.rule.frequency == WEEKLY:
            return start + timedelta(days=days // (7 * interval) * 7 * interval)
        per_step = interval if self.rule.frequency == MONTHLY else 12 * interval
        months = (day.year - start.year) * 12 + day.month - start.month
        steps = max(months, 0) // per_step
        if not steps:
            return start
        year, month = divmod(start.year * 12 + start.month - 1 + steps * per_step, 12)
        return datetime.combine(date(year, month + 1 if self.rule.frequency == MONTHLY else 1, 1), start.time())


@lru_cache(maxsize=4096)
def recurrence(text: str, first: datetime, timezone: str, exdates: tuple[date, ...] = ()) -> Recurrence:
    """The occurrences of a stored rule; ``first`` is the UTC start of the first one. Raises ``ValueError``."""
    zone = ZoneInfo(timezone)
    start = first.astimezone(zone).replace(tzinfo=None, microsecond=0)
    return Recurrence(read_rule(text, start, zone), first, start, zone, frozenset(exdates))


def check(found: Recurrence, length: timedelta) -> None:
    """Raise ``ValueError`` where a rule does not fit its first occurrence, or its occurrences overlap."""
    day = found.start.date()
    if found.first < EARLIEST_START:
        raise ValueError(f"start_time of a recurring window must not be before {EARLIEST_START:%Y-%m-%d}")
    rule = found.rule
    if rule.until is not None and rule.until < found.start:
        raise ValueError("ends before start_time: UNTIL must not be before the first occurrence")
    if not rule.fits(day) or next(iter(rrule(rule.frequency, found.start, **_once(rule)))) != found.start:
        raise ValueError(
            f"does not fit start_time, which has to be its first occurrence: {day} is a {day:%A} in {found.zone.key}"
        )
    far = found.first + timedelta(days=3660)
    starts = [at for _, at in islice(found.starts(found.first, far), _OVERLAP_LOOKED_AT)]
    if any(later - earlier < length for earlier, later in pairwise(starts)):
        raise ValueError("makes occurrences overlap: each has to end before the next begins")


def _once(rule: Rule) -> dict[str, Any]:
    return {**rule.by, "interval": rule.interval, "count": 1}


def read_rule(text: str, start: datetime, zone: ZoneInfo) -> Rule:
    """The rule that ``text`` writes, for a first occurrence at ``start`` by the clock of ``zone``.

    Raises ``ValueError`` with a sentence.
    """
    parts = _parts(text)
    frequency = _FREQUENCIES[parts.pop("FREQ")]
    if "COUNT" in parts and "UNTIL" in parts:
        raise ValueError("has COUNT and UNTIL; only one of them may stand in a rule")
    by: dict[str, Any] = {"wkst": _DAYS.index(parts.pop("WKST", "MO"))}
    until = _until(parts.pop("UNTIL"), zone) if "UNTIL" in parts else None
    interval, count = _number(parts, "INTERVAL") or 1, _number(parts, "COUNT")
    if "BYDAY" in parts:
        by["byweekday"] = _days(parts.pop("BYDAY"), frequency)
    for name, largest in (("BYMONTH", 12), ("BYMONTHDAY", 31), ("BYSETPOS", _SURE_POSITIONS)):
        if name in parts:
            by[name.lower()] = _numbers(name, parts.pop(name), largest)
    _refuse_odd_parts(by, frequency)
    return Rule(frequency, interval, count, until, _made_plain(by, frequency, start))


def _parts(text: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in text.strip().upper().removeprefix("RRULE:").split(";"):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise ValueError(f"must be a rule of RFC 5545 such as {EXAMPLE}, not {part!r}")
        if name in parts:
            raise ValueError(f"has {name} twice")
        parts[name] = value
    known = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "BYDAY", "BYMONTHDAY", "BYMONTH", "BYSETPOS", "WKST")
    for name in parts:
        if name not in known:
            raise ValueError(f"has {name}, which is not supported; supported are {', '.join(known)}")
    if parts.get("FREQ") not in _FREQUENCIES:
        raise ValueError(f"must have one of FREQ={', FREQ='.join(_FREQUENCIES)}; a window comes at most once a day")
    if parts.get("WKST", "MO") not in _DAYS:
        raise ValueError(f"must have one of {', '.join(_DAYS)} as WKST")
    return parts


def _number(parts: dict[str, str], name: str) -> int | None:
    if name not in parts:
        return None
    (number,) = numbers if len(numbers := _numbers(name, parts.pop(name), _LARGEST[name])) == 1 else (0,)
    if number < 1:
        raise ValueError(f"must have a whole number from 1 to {_LARGEST[name]} as {name}")
    return number


def _numbers(name: str, value: str, largest: int) -> tuple[int, ...]:
    numbers = [int(one) if _WHOLE.fullmatch(one) else 0 for one in value.split(",")]
    signed = name in ("BYMONTHDAY", "BYSETPOS")
    if any(not (-largest if signed else 1) <= number <= largest or number == 0 for number in numbers):
        raise ValueError(f"must have whole numbers from 1 to {largest}{' or negative ones' * signed} as {name}")
    return tuple(dict.fromkeys(numbers))


def _days(value: str, frequency: int) -> tuple[weekday, ...]:
    found = []
    for one in value.split(","):
        match = _BY_DAY.fullmatch(one)
        if match is None or (match[1] and (int(match[1]) == 0 or abs(int(match[1])) > 53)):
            raise ValueError(f"must have days such as SU, 2TU or -1FR as BYDAY, not {one!r}")
        if match[1] and frequency in (DAILY, WEEKLY):
            raise ValueError(f"has {one} as BYDAY; days with a number need FREQ=MONTHLY or FREQ=YEARLY")
        found.append(weekday(_DAYS.index(match[2]), int(match[1]) if match[1] else None))
    return tuple(found)


def _until(value: str, zone: ZoneInfo) -> datetime:
    match = _UNTIL.fullmatch(value)
    try:
        day = datetime.strptime(match[1] if match else "", "%Y%m%d").date()  # noqa: DTZ007 - a day has no zone
        if match is None or not match[2]:
            return datetime.combine(day, time.max)
        at = datetime.combine(day, time.fromisoformat(match[2][:7]))
        return at.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None) if match[3] else at
    except ValueError:
        raise ValueError("must have a day or a UTC time such as 20261231 or 20261231T235959Z as UNTIL") from None


def _refuse_odd_parts(by: Mapping[str, Any], frequency: int) -> None:
    if "bymonthday" in by and frequency == WEEKLY:
        raise ValueError("has BYMONTHDAY with FREQ=WEEKLY, which RFC 5545 does not allow")
    if "bymonthday" in by and frequency == DAILY:
        # It would be looked for day by day, over decades for a 29th of February that is a Monday.
        raise ValueError("has BYMONTHDAY with FREQ=DAILY; FREQ=MONTHLY says the same")
    numbered = any(day.n for day in by.get("byweekday", ()))
    if "bysetpos" in by and (frequency != MONTHLY or "byweekday" not in by or "bymonthday" in by or numbered):
        raise ValueError("has BYSETPOS, which is supported only with FREQ=MONTHLY and plain days, such as BYDAY=MO,TU")


def _made_plain(by: dict[str, Any], frequency: int, start: datetime) -> Mapping[str, Any]:
    """The same with what the first day implies said outright, so that the rule can be taken up at any later day."""
    if "byweekday" in by or "bymonthday" in by:
        return by
    if frequency == WEEKLY:
        return {**by, "byweekday": (weekday(start.weekday()),)}
    if frequency == MONTHLY:
        return {**by, "bymonthday": (start.day,)}
    if frequency == YEARLY:
        return {**by, "bymonth": by.get("bymonth", (start.month,)), "bymonthday": (start.day,)}
    return by
