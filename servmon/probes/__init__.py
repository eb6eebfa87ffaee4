"""HOW one protocol is asked: one file per protocol, which owns its options."""

from __future__ import annotations

from servmon.probes.base import Probe
from servmon.probes.dns import DnsProbe
from servmon.probes.exec import ExecProbe
from servmon.probes.http import HttpProbe, HttpsProbe
from servmon.probes.icmp import IcmpProbe
from servmon.probes.installed import installed_probes
from servmon.probes.tcp import TcpProbe
from servmon.probes.udp import UdpProbe

_OURS: tuple[Probe, ...] = (
    HttpProbe(),
    HttpsProbe(),
    TcpProbe(),
    UdpProbe(),
    DnsProbe(),
    IcmpProbe(),
    ExecProbe(),
)
PROBES: tuple[Probe, ...] = (*_OURS, *installed_probes(_OURS))

_BY_PROTOCOL = {probe.protocol: probe for probe in PROBES}


def find_probe(protocol: str) -> Probe | None:
    """The probe that asks ``protocol``, in capitals or not; ``None`` where there is no such protocol."""
    return _BY_PROTOCOL.get(protocol.upper())
