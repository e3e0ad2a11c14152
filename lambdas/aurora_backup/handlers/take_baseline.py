"""Read what the source holds now, and keep it: counts, heartbeat and catalogue. In the VPC."""

from __future__ import annotations

import time
from typing import Any

from aurora_backup import deployment
from aurora_backup.baseline import BaselineIncomplete
from aurora_backup.errors import ConnectionFailed, SettingsError
from aurora_backup.facts_sql import Questions, read_facts
from aurora_backup.postgres import Session, discover
from aurora_backup.recovery_settings import RecoverySettings
from aurora_backup.recovery_store import RecoveryStore
from aurora_backup.settings import Settings

_MARGIN = 20.0  # seconds kept for writing the answer


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Read every database through `event["database_endpoint"]` (`{host, port}`); return `{baseline}`, its key.

    Raises:
        BaselineIncomplete: the baseline is stored, and a database could not be read. Trying again is not worth its
            time: the next one is taken soon enough.

    """
    settings = Settings.from_environment()
    options = RecoverySettings.from_environment()
    if not settings.cluster_resource_id:
        raise SettingsError("CLUSTER_RESOURCE_ID must be set, and is missing or empty")
    endpoint = event["database_endpoint"]
    if endpoint is None:
        raise ConnectionFailed(f"cluster {settings.cluster_id} does not exist, or has no endpoint yet")

    def open_session(name: str) -> Session:
        return Session(deployment.target(settings, endpoint, name))

    names = settings.databases
    if names is None:
        with open_session("postgres") as session:
            names = tuple(discover(session))
    left = context.get_remaining_time_in_millis() / 1000 - _MARGIN
    questions = Questions(clock=time.monotonic, deadline=time.monotonic() + left, recency=options.validation.recency)
    facts = read_facts(open_session, names, questions)
    key = RecoveryStore(deployment.bucket(settings)).keep_baseline(settings.cluster_resource_id, facts)
    if facts.failed:
        causes = "; ".join(f"{name}: {why}" for name, why in sorted(facts.failed.items()))
        raise BaselineIncomplete(f"the baseline {key} was stored without {causes}")
    return {"baseline": key}
