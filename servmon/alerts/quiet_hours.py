"""``[[alert.quiet_hours]]``: at which hours what is not urgent waits until people are awake."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from servmon.model import Section, Severity

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _checked_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f'must be a time zone such as "Europe/Berlin", not {name!r}') from None
    return name


Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class QuietHours(Section):
    """From ``begins`` to ``ends`` o'clock there, over midnight where that is earlier.

    ``days`` are those on which they begin.
    """

    severities: tuple[Severity, ...] = Field(min_length=1)
    begins: Clock
    ends: Clock
    days: tuple[Day, ...] = DAYS
    timezone: Annotated[str, AfterValidator(_checked_zone)] = "UTC"

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.begins == self.ends:
            raise ValueError("ends: must be another time than begins")
        return self

    def until(self, severity: Severity, now: datetime) -> datetime | None:
        """When they end, in the zone's own time, where they hold now for this severity."""
        if severity not in self.severities:
            return None
        zone = ZoneInfo(self.timezone)
        today = now.astimezone(zone).date()
        for day in (today, today - timedelta(days=1)):
            begin, end = self._span(day, zone)
            if DAYS[day.weekday()] in self.days and begin.astimezone(UTC) <= now < end.astimezone(UTC):
                return end
        return None

    def _span(self, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
        last = day if self.begins < self.ends else day + timedelta(days=1)
        begin = datetime.combine(day, time.fromisoformat(self.begins), zone)
        return begin, datetime.combine(last, time.fromisoformat(self.ends), zone)
