"""Verify one set, in the tiers asked for; the outcome stays beside the manifest."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aurora_backup import deployment
from aurora_backup.errors import SettingsError
from aurora_backup.settings import Settings
from aurora_backup.verify import QUICK, TIERS, verify_set


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{set, ok, tiers: [{name, ok, detail, seconds, bytes}]}`; ok is None for a tier that cannot run here.

    event: `{set, tiers?}`; without tiers, the two that every backup gets right away.

    Raises:
        SettingsError: an unknown tier was asked for.

    """
    tiers = event.get("tiers") or QUICK
    unknown = sorted(set(tiers) - set(TIERS))
    if unknown:
        raise SettingsError(f"tiers must be among {', '.join(TIERS)}, got {', '.join(unknown)}")
    done = verify_set(deployment.bucket(Settings.from_environment()), str(event["set"]), tiers=tiers)
    return {"set": done.set, "ok": done.ok, "tiers": [asdict(tier) for tier in done.tiers]}
