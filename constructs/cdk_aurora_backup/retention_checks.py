"""BackupRetentionChecks: a validation plugin that says which Aurora clusters of any app lack the backups they need.

    Validations.of(app).add_plugins(BackupRetentionChecks())

It needs none of this package's constructs. A finding is acknowledged like cdk-nag's, with a reason that stays in
`validation-report.json`: `Validations.of(x).acknowledge(Acknowledgment(id="BackupRetention::BR09", reason="..."))`.
docs/rules.md explains each rule.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import jsii

from aurora_backup.policy import RetentionPolicy
from cdk_aurora_backup.retention_rules import RULES, check, nested_in

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "BackupRetention"
_FIX = "docs/rules.md of cdk-aurora-backup, {rule}: what to do, and when to acknowledge it"


@jsii.implements(cdk.IPolicyValidationPlugin)
class BackupRetentionChecks:
    """Finds every Aurora cluster of the app and holds it, its vaults, plans and buckets against a policy.

    policy: Default: `RetentionPolicy.hipaa()`.
    """

    def __init__(self, *, policy: RetentionPolicy | None = None) -> None:
        self._policy = policy or RetentionPolicy.hipaa()

    @property
    def name(self) -> str:
        """What acknowledgements name before `::`."""
        return NAME

    @property
    def version(self) -> str | None:
        """Of this package, where it is installed."""
        try:
            return version("cdk-aurora-backup")
        except PackageNotFoundError:
            return None

    @property
    def rule_ids(self) -> list[str]:
        """Every rule."""
        return [rule.id for rule in RULES]

    def validate(self, context: cdk.IPolicyValidationContext) -> cdk.PolicyValidationPluginReport:
        """Read the app's templates and report each rule that is broken, with the resources that break it."""
        found = check(*_templates(context.template_paths, self._policy))
        titles = {rule.id: rule.title for rule in RULES}
        violations = [
            cdk.PolicyViolation(
                rule_name=rule,
                description=f"{titles[rule]}: {message}",
                fix=_FIX.format(rule=rule),
                severity="error",
                violating_resources=[
                    cdk.PolicyViolatingResource(
                        resource_logical_id=f.resource.logical_id,
                        template_path=f.resource.template,
                        locations=[f.location],
                    )
                    for f in found
                    if (f.rule, f.message) == (rule, message)
                ],
            )
            for rule, message in dict.fromkeys((f.rule, f.message) for f in found)
        ]
        return cdk.PolicyValidationPluginReport(success=not violations, violations=violations)


def _templates(
    paths: Iterable[str], policy: RetentionPolicy
) -> tuple[dict[str, Any], RetentionPolicy, dict[tuple[str, str], str]]:
    """What `check` takes: the templates by path, with those of nested stacks, which CDK does not name by itself."""
    templates: dict[str, Any] = {}
    nested: dict[tuple[str, str], str] = {}
    waiting = [Path(path) for path in paths]
    while waiting:
        path = waiting.pop(0)
        if str(path) in templates or not path.exists():
            continue
        templates[str(path)] = body = json.loads(path.read_text("utf-8"))
        for logical_id, file in nested_in(body, _files(path.parent)).items():
            nested[str(path), logical_id] = str(path.parent / file)
            waiting.append(path.parent / file)
    return templates, policy, nested


def _files(directory: Path) -> dict[str, str]:
    """The file of each asset of an assembly, by the hash that its URL holds."""
    manifests = [json.loads(path.read_text("utf-8")) for path in sorted(directory.glob("*.assets.json"))]
    return {
        name: str(asset["source"]["path"])
        for manifest in manifests
        for name, asset in manifest.get("files", {}).items()
        if "path" in asset.get("source", {})
    }
