"""servmon: the service availability monitor for network engineers.

The names below are loaded at their first use, so that ``import servmon`` itself costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servmon.model import MaintenanceWindow, ProtocolType, ServiceEndpoint, ServiceOutage, ServiceStatus
    from servmon.services.availability import AvailabilityService
    from servmon.services.collector import ServiceAvailabilityCollector, collect_specific_service_availability
    from servmon.services.connection import connect
    from servmon.services.outages import OutageManagementService

__version__ = "0.1.0"

__all__ = [
    "AvailabilityService",
    "MaintenanceWindow",
    "OutageManagementService",
    "ProtocolType",
    "ServiceAvailabilityCollector",
    "ServiceEndpoint",
    "ServiceOutage",
    "ServiceStatus",
    "__version__",
    "collect_specific_service_availability",
    "connect",
]

_HOMES = {
    "AvailabilityService": "servmon.services.availability",
    "MaintenanceWindow": "servmon.model",
    "OutageManagementService": "servmon.services.outages",
    "ProtocolType": "servmon.model",
    "ServiceAvailabilityCollector": "servmon.services.collector",
    "ServiceEndpoint": "servmon.model",
    "ServiceOutage": "servmon.model",
    "ServiceStatus": "servmon.model",
    "collect_specific_service_availability": "servmon.services.collector",
    "connect": "servmon.services.connection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'servmon' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
