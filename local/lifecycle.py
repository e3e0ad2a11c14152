"""What S3 refuses in a bucket's lifecycle configuration, and MiniStack lets pass."""

from __future__ import annotations

import itertools
from typing import Any

_COLDER = ("STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE")
_INFREQUENT = ("STANDARD_IA", "ONEZONE_IA")
_INFREQUENT_DAYS = 30
_ACTIONS = (
    "Expiration",
    "Transitions",
    "NoncurrentVersionExpiration",
    "NoncurrentVersionTransitions",
    "AbortIncompleteMultipartUpload",
)


def problem(rules: list[dict[str, Any]]) -> str | None:
    """S3's reason for refusing these rules (in the shape of GetBucketLifecycleConfiguration), or None."""
    ids = [rule["ID"] for rule in rules if "ID" in rule]
    if len(set(ids)) < len(ids):
        return "Rule ID must be unique. Found same ID for more than one rule"
    if len(rules) > 1000:
        return "The lifecycle configuration has more than 1000 rules"
    return next(filter(None, map(_rule_problem, rules)), None)


def _rule_problem(rule: dict[str, Any]) -> str | None:
    where = f"filter '(prefix={rule.get('Filter', {}).get('Prefix', rule.get('Prefix', ''))})'"
    filters = {**rule.get("Filter", {}), **rule.get("Filter", {}).get("And", {})}
    if not any(rule.get(action) for action in _ACTIONS):
        return "At least one action needs to be specified in a rule"
    if "AbortIncompleteMultipartUpload" in rule and {
        "Tag",
        "Tags",
        "ObjectSizeGreaterThan",
        "ObjectSizeLessThan",
    } & set(
        filters,
    ):
        return "AbortIncompleteMultipartUpload cannot be specified with Tags or object sizes"
    expiration = rule.get("Expiration", {})
    if expiration.get("ExpiredObjectDeleteMarker") and ("Days" in expiration or "Date" in expiration):
        return "ExpiredObjectDeleteMarker cannot be specified with Days or Date"
    current = _steps_problem(where, "Days", rule.get("Transitions", []), expiration.get("Days"))
    noncurrent = rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")
    return current or _steps_problem(where, "NoncurrentDays", rule.get("NoncurrentVersionTransitions", []), noncurrent)


def _steps_problem(where: str, unit: str, steps: list[dict[str, Any]], expiry: int | None) -> str | None:
    for step in steps:
        days, to = step.get(unit, 0), step["StorageClass"]
        if to in _INFREQUENT and days < _INFREQUENT_DAYS:
            least = f"must be greater than or equal to {_INFREQUENT_DAYS}"
            return f"'{unit}' in Transition action {least} for storageClass '{to}'"
        if expiry is not None and expiry <= days:
            return (
                f"'{unit}' in the Expiration action for {where} must be greater than '{unit}' in the Transition action"
            )
    ordered = sorted(steps, key=lambda step: _COLDER.index(step["StorageClass"]))
    for warm, cold in itertools.pairwise(ordered):
        gap = _INFREQUENT_DAYS if warm["StorageClass"] in _INFREQUENT else 1
        if cold.get(unit, 0) < warm.get(unit, 0) + gap:
            action = f"'{unit}' in the Transition action with StorageClass"
            return (
                f"{action} '{cold['StorageClass']}' for {where} must be {gap} days more than "
                f"{action} '{warm['StorageClass']}'"
            )
    return None
