"""Sum up a logical backup for the notification, or fail it loudly."""

from __future__ import annotations

import json
from typing import Any

from aurora_backup.errors import LogicalBackupFailed, redact


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return the summary of a run in which every database was backed up and verified.

    event: `{results: [...], refused: [{name, cause}], ...}`. A result is what the dump returned, with its `verify`
    answer merged in when there is one, or `{database, error: {Error, Cause}}` from a caught failure.

    Raises:
        LogicalBackupFailed: some database was refused, failed, or did not verify; names each with its cause.

    """
    failed = {str(item["name"]): str(item["cause"]) for item in event.get("refused") or []}
    done = []
    for result in event.get("results") or []:
        problem = _problem(result)
        if problem:
            failed[_name(result)] = problem
        else:
            done.append(result)
    if failed:
        told = "; ".join(f"{name}: {redact(why)}" for name, why in sorted(failed.items()))
        total = len(done) + len(failed)
        raise LogicalBackupFailed(f"{len(failed)} of {total} databases were not backed up: {told}")
    if not done:
        raise LogicalBackupFailed("no database was backed up: the cluster has none to dump, or none was named")
    return {
        "databases": [
            {name: result.get(name) for name in ("database", "set", "bytes", "rows", "seconds", "state")}
            for result in done
        ],
        "bytes": sum(int(result.get("bytes") or 0) for result in done),
        "rows": sum(int(result.get("rows") or 0) for result in done),
    }


def _name(result: dict[str, Any]) -> str:
    database = result.get("database")
    return str(database.get("name") if isinstance(database, dict) else database or "(unnamed)")


def _problem(result: dict[str, Any]) -> str | None:
    error = result.get("error")
    if error:
        return f"{error.get('Error', 'Error')}: {_message(str(error.get('Cause', '')))}"
    if result.get("state") not in {"done", "already-done"}:
        return f"ended in state {result.get('state')!r}"
    verified = result.get("verify") or {}
    broken = [tier for tier in verified.get("tiers", []) if tier.get("ok") is False]
    if broken:
        return "; ".join(f"{tier['name']}: {tier.get('detail')}" for tier in broken)
    return None


def _message(text: str) -> str:
    """Return the message of a failed function: Step Functions wraps it in JSON with a stack trace."""
    try:
        return str(json.loads(text)["errorMessage"])
    except (ValueError, KeyError, TypeError):
        return text
