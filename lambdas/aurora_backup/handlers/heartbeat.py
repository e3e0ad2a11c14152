"""Write one heartbeat. In the VPC, on a schedule."""

from __future__ import annotations

from typing import Any

from aurora_backup import deployment, metrics
from aurora_backup.heartbeat import beat
from aurora_backup.postgres import Session
from aurora_backup.recovery_edges import utc_now
from aurora_backup.settings import Settings


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Write it into `event["database"]` at `event["database_endpoint"]` (`{host, port}`); return `{number, at}`."""
    settings = Settings.from_environment()
    with Session(deployment.target(settings, event["database_endpoint"], event["database"])) as session:
        number, at = beat(session)
    print(metrics.line(metrics.HEARTBEATS, 1, settings.owner, utc_now()))  # noqa: T201  that is how it is sent
    return {"number": number, "at": at}
