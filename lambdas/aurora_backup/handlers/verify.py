"""Verify one set, in the tiers asked for; the outcome stays beside the manifest."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aurora_backup import deployment
from aurora_backup.errors import SettingsError
from aurora_backup.settings import Settings
from aurora_backup.verify import QUICK, TIERS, recorded, verify_set


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{set, ok, tiers: [{name, ok, detail, seconds, bytes}]}`; ok is None for a tier that cannot run here.

    event: `{set, tiers?, reuse?}`; without tiers, the two that every backup gets right away. reuse: answer from the
    record beside the manifest when those tiers have passed there (the long-running engine verifies what it makes).

    Raises:
        SettingsError: an unknown tier was asked for.

    """
    tiers = event.get("tiers") or QUICK
    unknown = sorted(set(tiers) - set(TIERS))
    if unknown:
        raise SettingsError(f"tiers must be among {', '.join(TIERS)}, got {', '.join(unknown)}")
    bucket = deployment.bucket(Settings.from_environment())
    known = recorded(bucket, str(event["set"]), tiers) if event.get("reuse") else None
    done = known or verify_set(bucket, str(event["set"]), tiers=tiers)
    return {"set": done.set, "ok": done.ok, "tiers": [asdict(tier) for tier in done.tiers]}
