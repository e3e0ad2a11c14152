"""Dump one database into its set, or hand it over to the long-running engine in time."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from aurora_backup import deployment, sizing
from aurora_backup.dump import DumpOptions, Outcome, Request, available_cpus, dump_set, memory_budget
from aurora_backup.errors import DumpFailed, HandOver, QueryFailed, cause
from aurora_backup.instances import fall_back
from aurora_backup.manifest import NAME, parse_set_key
from aurora_backup.policy import Prefix, RetentionPolicy
from aurora_backup.settings import Settings

if TYPE_CHECKING:
    from datetime import datetime

_log = logging.getLogger(__name__)
_LAMBDA_COUNTS, _ENGINE_COUNTS = 300.0, 7200.0  # seconds; counting goes on beside pg_dump


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Make the set `event["database"]["set"]`.

    event: `{execution, started, prefix, cluster, instance, database: {name, set, bytes, ...}}`. Returns `{database,
    set, manifest_key, bytes, rows, seconds, state}`; state is "done", "already-done" (manifest_key is None when
    another execution has claimed the set and has not finished it; `reason` says which) or "handover", with `reason`.
    context: None has no deadline.
    """
    settings = Settings.from_environment()
    database = event["database"]
    bucket = deployment.bucket(settings)
    expected = int(database.get("archive_bytes") or sizing.estimate(int(database["bytes"])).archive_bytes)
    started = deployment.moment("started", event["started"])
    begun = time.monotonic()

    def check(sent: int) -> None:
        if context is None:  # the long-running engine has no deadline
            return
        reason = sizing.must_hand_over(
            elapsed=time.monotonic() - begun,
            remaining=context.get_remaining_time_in_millis() / 1000,
            sent=sent,
            expected=expected,
        )
        if reason:
            raise HandOver(reason)

    engine = {"name": "lambda" if context is not None else "codebuild", "cpus": available_cpus()}

    def make(instance: dict[str, Any]) -> Outcome:
        request = Request(
            key=database["set"],
            owner=settings.owner,
            execution=event["execution"],
            started=started,
            source={"cluster": event["cluster"], "instance": instance, "engine": engine},
            expires=expiry(settings, database["set"], started),
            check=check,
        )
        return dump_set(deployment.target(settings, instance, database["name"]), bucket, request, options)

    pinned = {name: value for name, value in event["instance"].items() if name != "writer"}
    options = DumpOptions(
        compression=settings.compression,
        jobs=available_cpus(),
        memory_budget=memory_budget(),
        count_seconds=count_seconds(None if context is None else context.get_remaining_time_in_millis() / 1000),
        digest=settings.content_digest,
    )
    try:
        try:
            outcome = make(pinned)
        except (DumpFailed, QueryFailed) as error:
            writer = fall_back(event["instance"], str(error))
            if writer is None:
                raise
            _log.warning("%s: going on with the writer %s", cause(error), writer["id"])
            outcome = make(writer)
    except HandOver as reason:
        _log.info("handing %s over: %s", database["set"], reason)
        return {**result(database, None, time.monotonic() - begun, "handover"), "reason": str(reason)}
    return result(database, outcome, outcome.seconds, outcome.state)


def count_seconds(remaining: float | None) -> float:
    """Seconds for exact counts: a third of what is left to a function, at most 300; two hours of the engine's eight."""
    return _ENGINE_COUNTS if remaining is None else min(_LAMBDA_COUNTS, remaining / 3)


def expiry(settings: Settings, key: str, started: datetime) -> datetime | None:
    """When the policy lets the set go, or None when the prefix is not one of the policy's."""
    prefix = parse_set_key(key)[0]
    if settings.retention_policy is None or prefix not in set(Prefix):
        return None
    return RetentionPolicy.from_json(settings.retention_policy).prefix_keep(Prefix(prefix)).until(started)


def result(database: dict[str, Any], outcome: Outcome | None, seconds: float, state: str) -> dict[str, Any]:
    """Return the handler's answer, small enough to travel between states."""
    manifest = outcome.manifest if outcome else None
    return {
        "database": database["name"],
        "set": database["set"],
        "manifest_key": database["set"] + NAME if manifest else None,
        "bytes": manifest.size if manifest else 0,
        "rows": manifest.facts.rows if manifest else 0,
        "estimated_tables": manifest.facts.estimated if manifest else 0,
        "seconds": round(seconds, 3),
        "state": state,
        **({"reason": outcome.reason} if outcome and outcome.reason else {}),
    }
