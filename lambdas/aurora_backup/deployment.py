"""The edges as a function's environment describes them: which bucket, which database, which password."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aurora_backup.errors import SettingsError
from aurora_backup.postgres import Login, Target, iam_password, secret_login
from aurora_backup.s3 import Bucket, make_client

if TYPE_CHECKING:
    from aurora_backup.settings import Settings


def bucket(settings: Settings) -> Bucket:
    """Return the backup bucket, encrypting with the backup key when there is one."""
    return Bucket(make_client, settings.backup_bucket, kms_key=settings.backup_key_arn)


def target(settings: Settings, instance: dict[str, Any], dbname: str) -> Target:
    """Return a database on the pinned instance `{"host", "port"}`, with the role's own way to authenticate."""
    host, port = str(instance["host"]), int(instance["port"])
    if settings.db_auth == "secret" and settings.db_secret_arn:
        login = secret_login(settings.db_secret_arn)
    else:
        login = Login(settings.db_user, iam_password(host, port, settings.db_user))
    return Target(
        host=host,
        port=port,
        dbname=dbname,
        user=login.user,
        password=login.password,
        sslrootcert=settings.root_certificate,
    )


def moment(name: str, value: Any) -> datetime:
    """Read an aware time out of an event.

    Raises:
        SettingsError: it is not ISO 8601 with a time zone; names the field.

    """
    try:
        parsed = datetime.fromisoformat(str(value))
    except ValueError:
        parsed = datetime.min  # noqa: DTZ901  refused below
    if parsed.tzinfo is None:
        raise SettingsError(f"{name} must be an ISO 8601 time with a time zone, got {value!r}")
    return parsed.astimezone(UTC)
