"""Sum up a logical backup for the notification, or fail it loudly."""

from __future__ import annotations

import json
from typing import Any

from aurora_backup.errors import LogicalBackupFailed, redact

_TOLD = ("database", "set", "bytes", "rows", "estimated_tables", "seconds", "state")


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return the summary of a run in which nothing failed: `{state, databases, elsewhere, bytes, rows}`.

    databases: backed up and verified. elsewhere: left to another execution, which has claimed the set and may be making
    it still, or may have failed: nobody may take those for backed up. state: "done", or "elsewhere" when there is
    nothing else.

    event: `{results: [...], refused: [{name, cause}], ...}`. A result is `{database, dump, verified}` with the answers
    of the dump and verify functions (verified may be absent), or `{database, error, cause}` from a caught failure.

    Raises:
        LogicalBackupFailed: some database was refused, failed, or did not verify; names each with its cause.

    """
    failed = {str(item["name"]): str(item["cause"]) for item in event.get("refused") or []}
    done, elsewhere = [], []
    for result in event.get("results") or []:
        problem = _problem(result)
        if problem:
            failed[str(result.get("database"))] = problem
        elif result["dump"]["manifest_key"] is None:
            elsewhere.append({name: result["dump"].get(name) for name in ("database", "set", "reason")})
        else:
            done.append(result["dump"])
    if failed:
        told = "; ".join(f"{name}: {redact(why)}" for name, why in sorted(failed.items()))
        total = len(done) + len(elsewhere) + len(failed)
        raise LogicalBackupFailed(f"{len(failed)} of {total} databases were not backed up: {told}")
    if not done and not elsewhere:
        raise LogicalBackupFailed("no database was backed up: the cluster has none to dump, or none was named")
    return {
        "state": "done" if done else "elsewhere",
        "elsewhere": elsewhere,
        "databases": [{name: result.get(name) for name in _TOLD} for result in done],
        "bytes": sum(int(result.get("bytes") or 0) for result in done),
        "rows": sum(int(result.get("rows") or 0) for result in done),
    }


def _problem(result: dict[str, Any]) -> str | None:
    if "error" in result:
        return f"{result['error']}: {_message(str(result.get('cause', '')))}"
    state = (result.get("dump") or {}).get("state")
    if state not in {"done", "already-done"}:
        return f"ended in state {state!r}"
    if "manifest_key" not in result["dump"]:
        return "says nothing of a manifest: without one there is no backup"
    broken = [t for t in (result.get("verified") or {}).get("tiers", []) if t.get("ok") is False]
    return "; ".join(f"{tier['name']}: {tier.get('detail')}" for tier in broken) or None


def _message(text: str) -> str:
    """Return what a person needs of a failed task: a function's message, or how a build ended and where its log is.

    Step Functions wraps the one in JSON with a stack trace, and gives for the other what CodeBuild says of the build.
    """
    try:
        told = json.loads(text)
        build = told.get("Build", told)
        if "BuildStatus" not in build:
            return str(told["errorMessage"])
        contexts = [context for phase in build.get("Phases") or () for context in phase.get("Contexts") or ()]
        why = "; ".join(str(context["Message"]) for context in contexts if context.get("Message"))
        log = build.get("Logs") or {}
        where = f"its log is {log.get('GroupName')}, stream {log.get('StreamName')}"
        return f"build {build.get('Id')} ended {build['BuildStatus']}{': ' if why else ''}{why}; {where}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return text
