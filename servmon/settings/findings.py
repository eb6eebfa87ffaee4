"""Everything that is wrong or doubtful in a configuration, each with the place where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from servmon.errors import StartError
from servmon.probes.base import safe_text
from servmon.settings.toml_positions import Keys, key_lines

# A file of thousands of endpoints tends to have the same doubt thousands of times.
WARNING_LIMIT = 20
_AFTER_ALL_FILES = 1 << 60


class SettingsError(StartError):
    """The configuration cannot be used; ``lines`` names every problem, each as ``place: key: sentence``."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[SettingsError], tuple[list[str]]]:
        """What another process needs to raise the same."""
        return SettingsError, (list(self.lines),)


class _File:
    """One file of the configuration; ``first`` are the numbers of its first tables among those of all files."""

    def __init__(self, path: Path | None, text: str, first: Mapping[str, int]) -> None:
        self.path = path
        self.text = text
        self.first = first

    @cached_property
    def lines(self) -> dict[Keys, int]:
        return key_lines(self.text)

    def holds(self, kind: str | int, number: int) -> bool:
        return self.first.get(str(kind), 0) <= number

    def line(self, keys: Keys) -> int:
        """The line of ``keys``, or of the nearest thing around it; 0 where nothing is known."""
        if len(keys) > 1 and isinstance(keys[1], int):
            keys = (keys[0], keys[1] - self.first.get(str(keys[0]), 0), *keys[2:])
        return next((self.lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.lines), 0)


class Findings:
    """Collects problems and warnings; looks up lines only once somebody asks for one."""

    def __init__(self, path: Path | None = None, text: str = "", folder: Path | None = None) -> None:
        self.path = path
        self.folder = folder if folder is not None or path is None else path.parent
        self.variables: dict[tuple[str, str], str] = {}
        self._files = [_File(path, text, {})]
        self._problems: list[tuple[int, int, str]] = []
        self._warnings: list[str] = []

    def add_file(self, path: Path, text: str, first: Mapping[str, int]) -> None:
        """Another file, whose tables of each kind begin with the numbers in ``first``."""
        self._files.append(_File(path, text, first))

    @property
    def texts(self) -> tuple[tuple[Path, str], ...]:
        """Every file that was read, and what stood in it."""
        return tuple((file.path, file.text) for file in self._files if file.path is not None)

    def line(self, keys: Keys) -> int:
        """The line of ``keys`` in its file, or of the nearest thing around it; 0 where nothing is known."""
        return self._file(keys).line(keys)

    def where(self, keys: Keys) -> str:
        """The file and line of ``keys``."""
        file, line = self._file(keys), self.line(keys)
        return f"{file.path}:{line}" if len(self._files) > 1 else f"line {line}"

    def problem(self, keys: Keys, sentence: str, *, label: str | None = None) -> None:
        """Something at ``keys`` that cannot be accepted. ``label`` is its name where the keys would say too little."""
        self._problems.append(self._placed(keys, sentence, label, self._file(keys)))

    def problem_once(self, keys: Keys, sentence: str, *, label: str | None = None) -> None:
        """As ``problem``, of what many may run into."""
        if (placed := self._placed(keys, sentence, label, self._file(keys))) not in self._problems:
            self._problems.append(placed)

    def problem_of_last_file(self, keys: Keys, sentence: str) -> None:
        """As ``problem``, of something that stands in the file added last."""
        self._problems.append(self._placed(keys, sentence, None, self._files[-1]))

    def warn(self, keys: Keys, sentence: str, *, label: str | None = None) -> None:
        """Something at ``keys`` that works, but hardly as it was meant."""
        self._warnings.append(self._placed(keys, sentence, label, self._file(keys))[2])

    def warn_of_variable(self, name: str, sentence: str) -> None:
        """As ``warn``, of an environment variable that is no setting."""
        self._warnings.append(safe_text(f"environment: {name}: {sentence}"))

    def _file(self, keys: Keys) -> _File:
        if len(keys) > 1 and isinstance(number := keys[1], int):
            return next(file for file in reversed(self._files) if file.holds(keys[0], number))
        return self._files[0]

    def _placed(self, keys: Keys, sentence: str, label: str | None, file: _File) -> tuple[int, int, str]:
        variable = self.variables.get((str(keys[0]), str(keys[1]))) if len(keys) > 1 else None
        if variable is not None:
            return _AFTER_ALL_FILES, 0, safe_text(f"environment: {variable}: {sentence}", limit=1000)
        line = file.line(keys)
        place = [str(file.path)] if file.path is not None else []
        place += [str(line)] if line else []
        where = ":".join(place)
        what = f"{label or '.'.join(str(key) for key in keys)}: {sentence}"
        return self._files.index(file), line, safe_text(f"{where}: {what}" if where else what, limit=1000)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was doubtful, at most ``WARNING_LIMIT`` lines and one that counts the rest."""
        shown = self._warnings[:WARNING_LIMIT]
        rest = len(self._warnings) - len(shown)
        return (*shown, f"… and {rest} more like these") if rest else tuple(shown)

    def stop_if_wrong(self) -> None:
        """Raise ``SettingsError`` with every problem found, in the order of the files; the environment's come last."""
        if self._problems:
            raise SettingsError([text for *_, text in sorted(self._problems, key=lambda problem: problem[:2])])
