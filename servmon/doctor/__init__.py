"""`servmon doctor`: what stands in the way of good monitoring here, each with what to do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from servmon.doctor import machine, neighbours
from servmon.doctor.finding import Finding, Level
from servmon.settings import Loaded

__all__ = ["Finding", "Level", "examine"]


async def examine(loaded: Loaded, environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Every finding, the good ones too. Asks only this machine and what the configuration names; sends nothing."""
    settings = loaded.settings
    for warning in loaded.warnings:
        yield Finding(Level.WARNING, "configuration", warning)
    yield await machine.icmp()
    yield machine.descriptors(settings.service.max_sockets)
    yield machine.clock()
    yield await machine.resolver()
    async for finding in neighbours.witnesses(settings.outage.witnesses):
        yield finding
    yield await neighbours.postgres(settings)
    for finding in machine.disk(settings, loaded.endpoints):
        yield finding
    for host in settings.elasticsearch.hosts:
        yield await neighbours.elasticsearch(host, settings.elasticsearch)
    async for finding in neighbours.channels(settings.channels):
        yield finding
    for finding in (*machine.service(loaded.endpoints), *machine.proxies(environ)):
        yield finding
