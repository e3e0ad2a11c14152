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
# What PostgreSQL and its tools print about rows and statements, with the indented lines that belong to it.
_DATA_LINES = re.compile(
    r"\b(?:DETAIL|CONTEXT|STATEMENT|QUERY|Command was|Query was): ?[^\n]*(?:\n[ \t][^\n]*)*", re.IGNORECASE
)
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


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Make a tool's or a server's output fit for a log or an alert.

    Drops DETAIL, CONTEXT and statement lines (they quote rows), quoted values of conversion errors, and every secret
    given; cuts what is left to 2000 characters.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    text = _DATA_LINES.sub("", text)
    text = _VALUE.sub(r"\1", text)
    text = text.strip()
    return text if len(text) <= _LIMIT else text[: _LIMIT - 1] + "…"


def cause(error: BaseException) -> str:
    """One redacted line that names the class and says why, for results and notifications."""
    return redact(f"{type(error).__name__}: {error}")
