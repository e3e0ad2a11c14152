"""Read what a restored copy holds, and check its indexes and tables. In the VPC: PostgreSQL, S3 and a secret only."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from aurora_backup import deployment
from aurora_backup.baseline import NO_ANSWER, RECENCY
from aurora_backup.facts_sql import Questions, read_facts
from aurora_backup.postgres import Session, discover
from aurora_backup.recovery_edges import utc_now
from aurora_backup.recovery_settings import RecoverySettings
from aurora_backup.recovery_store import RecoveryStore
from aurora_backup.settings import Settings

_MARGIN = 20.0  # seconds kept for writing the answer


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Read the copy at `event["restored"]` (`{host, port, secret}`) of `event["plan"]`; return `{facts, first_query}`.

    secret: ARN of the copy's own master secret; None logs in as the source does.
    """
    settings = Settings.from_environment()
    options = RecoverySettings.from_environment()
    store = RecoveryStore(deployment.bucket(settings))
    plan = store.plan(event["plan"])
    if secret := event["restored"].get("secret"):
        settings = replace(settings, db_auth="secret", db_secret_arn=secret)

    def open_session(name: str) -> Session:
        return Session(deployment.target(settings, event["restored"], name))

    first = settings.databases[0] if settings.databases else "postgres"
    with open_session(first) as session:
        found = tuple(discover(session))
    first_query = utc_now()
    left = context.get_remaining_time_in_millis() / 1000 - _MARGIN
    questions = Questions(
        clock=time.monotonic,
        deadline=time.monotonic() + left,
        count_seconds=left / 3,
        integrity=True,
        recency=options.validation.recency,
        checks=options.validation.checks,
    )
    facts = read_facts(open_session, settings.databases or found, questions)
    for name, database in facts.databases.items():
        if name in options.validation.recency and database.recency is None:
            database.unreadable.setdefault(RECENCY, NO_ANSWER)
    return {"facts": store.keep_facts(plan, facts), "first_query": first_query.isoformat()}
