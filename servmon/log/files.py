"""The file that gets the logs: moved away by logrotate, or broken, it never stops whoever has something to say."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from logging.handlers import WatchedFileHandler
from pathlib import Path

from servmon.errors import StartError


class LogFile(WatchedFileHandler):
    """Notices at each line that its file was moved away, or reopens it when told.

    While it cannot be written (its folder is gone, the disk is full) that is said once on standard error.
    """

    def __init__(self, file: Path) -> None:
        self._failed = False  # at the line that is being written
        self._broken = False  # at the one before
        try:
            super().__init__(file, encoding="utf-8")
        except OSError as error:
            raise StartError(f"log.file: {file} cannot be written: {error.strerror or error}") from None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        self._failed = False
        try:
            super().emit(record)
        except OSError as error:  # the file could not be opened anew
            self._fail(error)
        self._broken = self._failed

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Take a line that could not be written, such as to a full disk."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._fail(error)
        else:
            super().handleError(record)

    def reopen(self) -> None:
        """Close the file, so that the next line opens whatever has its name by then."""
        self.acquire()
        try:
            if self.stream is not None:
                with suppress(OSError):
                    self.stream.close()
                self.stream = None
        finally:
            self.release()

    def close(self) -> None:
        """Close the file, with whatever could not be written to it."""
        with suppress(OSError):
            super().close()

    def _fail(self, error: OSError) -> None:
        self._failed = True
        if not self._broken:
            with suppress(OSError):
                sys.stderr.write(f"log.file: {self.baseFilename} cannot be written: {error.strerror or error}\n")
