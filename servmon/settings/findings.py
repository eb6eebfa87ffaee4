"""Everything that is wrong or doubtful in a configuration, each with the place where it stands."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from servmon.errors import StartError
from servmon.probes.base import safe_text
from servmon.settings.toml_positions import Keys, key_lines

# A file of thousands of endpoints tends to have the same doubt thousands of times.
WARNING_LIMIT = 20
_AFTER_ALL_LINES = 1 << 60


class SettingsError(StartError):
    """The configuration cannot be used; ``lines`` names every problem, each as ``place: key: sentence``."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[SettingsError], tuple[list[str]]]:
        """What another process needs to raise the same."""
        return SettingsError, (list(self.lines),)


class Findings:
    """Collects problems and warnings; looks up lines only once somebody asks for one."""

    def __init__(self, path: Path | None = None, text: str = "") -> None:
        self.path = path
        self.text = text
        self.variables: dict[tuple[str, str], str] = {}
        self._problems: list[tuple[int, str]] = []
        self._warnings: list[str] = []

    @cached_property
    def _lines(self) -> dict[Keys, int]:
        return key_lines(self.text)

    def line(self, keys: Keys) -> int:
        """The line of ``keys``, or of the nearest thing around it; 0 where nothing is known."""
        return next((self._lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self._lines), 0)

    def problem(self, keys: Keys, sentence: str, *, label: str | None = None) -> None:
        """Something at ``keys`` that cannot be accepted. ``label`` is its name where the keys would say too little."""
        self._problems.append(self._placed(keys, sentence, label))

    def warn(self, keys: Keys, sentence: str, *, label: str | None = None) -> None:
        """Something at ``keys`` that works, but hardly as it was meant."""
        self._warnings.append(self._placed(keys, sentence, label)[1])

    def warn_of_variable(self, name: str, sentence: str) -> None:
        """As ``warn``, of an environment variable that is no setting."""
        self._warnings.append(safe_text(f"environment: {name}: {sentence}"))

    def _placed(self, keys: Keys, sentence: str, label: str | None) -> tuple[int, str]:
        variable = self.variables.get((str(keys[0]), str(keys[1]))) if len(keys) > 1 else None
        if variable is not None:
            return _AFTER_ALL_LINES, safe_text(f"environment: {variable}: {sentence}", limit=1000)
        line = self.line(keys)
        place = [str(self.path)] if self.path is not None else []
        place += [str(line)] if line else []
        where = ":".join(place)
        what = f"{label or '.'.join(str(key) for key in keys)}: {sentence}"
        return line, safe_text(f"{where}: {what}" if where else what, limit=1000)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was doubtful, at most ``WARNING_LIMIT`` lines and one that counts the rest."""
        shown = self._warnings[:WARNING_LIMIT]
        rest = len(self._warnings) - len(shown)
        return (*shown, f"… and {rest} more like these") if rest else tuple(shown)

    def stop_if_wrong(self) -> None:
        """Raise ``SettingsError`` with every problem found, in the order of the file; the environment's come last."""
        if self._problems:
            raise SettingsError([text for _, text in sorted(self._problems, key=lambda problem: problem[0])])
