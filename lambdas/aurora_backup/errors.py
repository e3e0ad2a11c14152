"""What can go wrong, by name, and the one place that keeps secrets and data out of messages.

Step Functions matches `ErrorEquals` on these class names, so renaming one is a change of interface.
"""

# ruff: noqa: N818  names say what happened, as they read in an alert and in ErrorEquals

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIMIT = 2000
# What PostgreSQL and its tools say, line by line; in a server's log a time and a process come first.
_BEGINNING = r"(?:\d{4}-\d\d-\d\d [^\n]*?\] )?"
_MESSAGE = re.compile(_BEGINNING + r"(?:pg_\w+: |(?:ERROR|FATAL|PANIC|WARNING|NOTICE|INFO|LOG|HINT):)")
# What follows quotes rows and statements, and goes on until the next message begins, whatever its lines look like.
_DATA = re.compile(
    _BEGINNING + r"(?:pg_\w+: )?(?:DETAIL|CONTEXT|STATEMENT|QUERY|Command was|Query was|LINE \d+):", re.IGNORECASE
)
_INLINE = re.compile(r"\b(?:DETAIL|CONTEXT|STATEMENT|QUERY|Command was|Query was): ?.*")  # told on in one line
_VALUE = re.compile(r"((?:invalid input|invalid byte|out of range|malformed|value)[^:\n]*): ?[^\n]*")


class BackupError(Exception):
    """Any failure that this package raises itself. Its message never holds a secret or a row."""


class SettingsError(BackupError):
    """An environment variable or an argument is missing or malformed; the message names it."""


class ConnectionFailed(BackupError):
    """PostgreSQL could not be reached, or refused us."""


class QueryFailed(BackupError):
    """PostgreSQL refused a statement of ours."""


class PreflightFailed(BackupError):
    """A database cannot be dumped as it is; the message names the objects and the remedy."""


class DumpFailed(BackupError):
    """pg_dump failed, or the archive could not be finished; nothing was left under the set's name."""


class S3Failed(BackupError):
    """S3 refused a request, or could not be reached."""


class ObjectExists(BackupError):
    """A conditional write found the key taken."""


class HandOver(BackupError):
    """The dump will not finish before the deadline; the long-running engine has to take it."""


class ManifestError(BackupError):
    """A manifest is malformed, altered, or of a version that this code does not know."""


class ArchiveDamaged(BackupError):
    """An archive's bytes are not those that the manifest recorded, or do not decode."""


class RestoreRefused(BackupError):
    """The target or the request does not allow this restore."""


class RestoreFailed(BackupError):
    """pg_restore failed, or the restored database differs from the manifest."""


class RecordError(BackupError):
    """A creation record is missing, malformed, or somebody else's."""


class LogicalBackupFailed(BackupError):
    """At least one database was not backed up; the message names each with its cause."""


class Redaction:
    """Takes lines one by one, and lets through what quotes no row and no statement."""

    def __init__(self) -> None:
        self._dropping = False

    def keep(self, line: str) -> str | None:
        """The line, without a quoted value of a conversion error; None when it is data."""
        if _DATA.match(line):
            self._dropping = True
        elif _MESSAGE.match(line):
            self._dropping = False
        if self._dropping:
            return None
        kept = _VALUE.sub(r"\1", _INLINE.sub("", line))
        self._dropping = bool(_VALUE.search(line) or _INLINE.search(line))
        return kept


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Make a tool's or a server's output fit for a log or an alert.

    Drops DETAIL, CONTEXT and statements (they quote rows) to their last line, quoted values of conversion errors, and
    every secret given; cuts what is left to 2000 characters. A text that PostgreSQL's own users wrote into a message
    (RAISE) is not known from any other.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    redaction = Redaction()
    text = "\n".join(kept for line in text.splitlines() if (kept := redaction.keep(line)) is not None).strip()
    return text if len(text) <= _LIMIT else text[: _LIMIT - 1] + "…"


def cause(error: BaseException) -> str:
    """One redacted line that names the class and says why, for results and notifications."""
    return redact(f"{type(error).__name__}: {error}")
