"""`servmon service install`: puts the systemd units in place, so that they start this very servmon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from servmon.errors import StartError

UNITS = ("servmon.service", "servmon@.service")
# What lies beside the units, and where each belongs.
PLACES = {
    **{unit: f"etc/systemd/system/{unit}" for unit in UNITS},
    "servmon.sysusers": "etc/sysusers.d/servmon.conf",
    "servmon.tmpfiles": "etc/tmpfiles.d/servmon.conf",
    "servmon.logrotate": "etc/logrotate.d/servmon",
}
# Where the units say that servmon is.
_PACKAGED_COMMAND = "/opt/servmon/bin/servmon"
_FIRST_CONFIGURATION = """\
# What servmon watches here. Every option, with its default and one line of why, stands in config.example.toml.
[alert]
# Names of [channels.NAME]; while nobody is to be told, say so.
notification_channels = []

#[[endpoints]]
#id = "portal"
#url = "https://portal.example/"
"""


def install(root: Path, command: Path) -> Iterator[str]:
    """Write the units below ``root`` (``/`` but for packagers), started by ``command``; says each thing it did.

    A configuration that is there stays as it is. Raises ``StartError`` where something cannot be written.
    """
    try:
        yield from _install(root, command)
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}; only root may install a service") from None


def _install(root: Path, command: Path) -> Iterator[str]:
    for name, place in PLACES.items():
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (_units_folder() / name).read_text(encoding="utf-8")
        target.write_text(text.replace(_PACKAGED_COMMAND, str(command)), encoding="utf-8")
        yield f"wrote {target}"
    configuration = root / "etc/servmon/servmon.toml"
    if configuration.exists():
        yield f"left {configuration} as it is"
    else:
        configuration.parent.mkdir(parents=True, exist_ok=True)
        configuration.write_text(_FIRST_CONFIGURATION, encoding="utf-8")
        configuration.chmod(0o644)  # the service's account is made at its start; secrets belong into KEY_file
        yield f"wrote {configuration}"
    yield "next: systemd-tmpfiles --create servmon.conf; systemctl daemon-reload; systemctl enable --now servmon"


def _units_folder() -> Path:
    """In a wheel the units are package data; in a clone they lie beside the package."""
    package = Path(__file__).resolve().parent
    for folder in (package / "units", package.parent / "systemd"):
        if (folder / UNITS[0]).is_file():
            return folder
    raise StartError(f"the systemd units are missing from {package}; install servmon again")
