"""Sum up a trial restore, or fail it loudly: a set that could not be restored is no backup."""

from __future__ import annotations

from typing import Any

from aurora_backup.errors import LogicalBackupFailed


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{restored: [...], not_run: [...]}`.

    event: `{results: [{database, set, verified: {tiers: [...]}} or {database, set, error, cause}]}`.

    Raises:
        LogicalBackupFailed: a set was not restored exactly, or there was no set at all; names each and why.

    """
    restored: list[str] = []
    not_run: list[str] = []
    failed: list[str] = []
    for result in event.get("results") or []:
        name, tiers = str(result.get("database")), (result.get("verified") or {}).get("tiers") or []
        told = f"{name}: " + "; ".join(f"{tier['name']}: {tier['detail']}" for tier in tiers)
        if "error" in result:
            failed.append(f"{name}: {result['error']}: {str(result.get('cause', ''))[:300]}")
        elif any(tier["ok"] is False for tier in tiers) or not tiers:
            failed.append(told)
        else:
            (restored if all(tier["ok"] for tier in tiers) else not_run).append(told)
    if failed or not (restored or not_run):
        raise LogicalBackupFailed("; ".join(failed) or "there is no set to restore")
    return {"restored": restored, "not_run": not_run}
