"""The rules of BackupRetentionChecks: what CloudFormation templates say of Aurora clusters and their backups. Pure.

They read plain templates, however those were made. A value that is only known at deployment (an intrinsic function) is
not judged, on purpose; a reference from one template to another is followed where an export, or the parameters and
outputs of a nested stack, show the way.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aurora_backup.policy import AutomatedTier, LifecycleRule, PolicyError, RetentionPolicy, StorageClass, Transition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_CLUSTER, _VAULT, _PLAN = "AWS::RDS::DBCluster", "AWS::Backup::BackupVault", "AWS::Backup::BackupPlan"
_SELECTION, _BUCKET, _RULE = "AWS::Backup::BackupSelection", "AWS::S3::Bucket", "AWS::Events::Rule"
_ALARM, _OVER = "AWS::CloudWatch::Alarm", "BACKUP_JOB_COMPLETED"
_NESTED = "AWS::CloudFormation::Stack"
_POLICIES = {
    "AWS::IAM::Role": "Policies",
    "AWS::IAM::Policy": None,
    "AWS::IAM::ManagedPolicy": None,
    "AWS::IAM::User": "Policies",
    "AWS::IAM::Group": "Policies",
}
_SHARING = ("rds:ModifyDBClusterSnapshotAttribute", "rds:ModifyDBSnapshotAttribute")


@dataclass(frozen=True)
class Resource:
    """One resource of one template. properties: as they stand, intrinsic functions included."""

    template: str
    logical_id: str
    type: str
    properties: Mapping[str, Any]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """A rule that a resource breaks. location: in the resource, `Properties.DeletionProtection`."""

    rule: str
    resource: Resource
    location: str
    message: str


@dataclass(frozen=True)
class Rule:
    """id: what an acknowledgement names, after `BackupRetention::`. title: the rule; docs/rules.md says more."""

    id: str
    title: str
    check: Callable[[App, RetentionPolicy], Iterator[tuple[Resource, str, str]]]


@dataclass(frozen=True)
class App:
    """Every template of an app, by path.

    nested: the template of each nested stack, by the template and the logical id that nest it.
    """

    templates: Mapping[str, Mapping[str, Any]]
    nested: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def of(self, *types: str) -> Iterator[Resource]:
        """Its resources of some types."""
        for path, template in self.templates.items():
            for name, body in (template.get("Resources") or {}).items():
                if isinstance(body, dict) and body.get("Type") in types:
                    yield Resource(path, name, body["Type"], _object(body.get("Properties")), body)

    def clusters(self) -> Iterator[Resource]:
        """Aurora clusters; one whose engine is known only at deployment counts as one."""
        for cluster in self.of(_CLUSTER):
            engine = cluster.properties.get("Engine")
            if not isinstance(engine, str) or engine.startswith("aurora"):
                yield cluster

    def refers_to(self, value: Any, template: str, target: Resource) -> bool:
        """Whether a value in a template is, or is made of, a reference to a resource, also in another template."""
        if isinstance(value, list):
            return any(self.refers_to(item, template, target) for item in value)
        if not isinstance(value, dict):
            return False
        name, attribute = _attribute(value)
        here = template == target.template and target.logical_id in (value.get("Ref"), name)
        if here or self._given(value.get("Ref"), template, target) or self._told(name, attribute, template, target):
            return True
        if "Fn::ImportValue" in value:
            return self.exported(value["Fn::ImportValue"], target)
        if isinstance(sub := value.get("Fn::Sub"), str) and template == target.template:
            return f"${{{target.logical_id}}}" in sub or f"${{{target.logical_id}." in sub
        return any(self.refers_to(item, template, target) for item in value.values())

    def _given(self, parameter: Any, template: str, target: Resource) -> bool:
        """Whether a nested stack's parameter is given a reference to the resource."""
        for (outer, logical_id), inner in self.nested.items():
            if inner == template:
                body = _object(self.templates[outer]["Resources"][logical_id].get("Properties"))
                given = _object(body.get("Parameters"))
                named = isinstance(parameter, str) and parameter in given
                if named and self.refers_to(given[parameter], outer, target):
                    return True
        return False

    def _told(self, stack: Any, attribute: str, template: str, target: Resource) -> bool:
        """Whether a nested stack's output is made of a reference to the resource."""
        inner = self.nested.get((template, stack)) if isinstance(stack, str) else None
        if inner is None or not attribute.startswith("Outputs."):
            return False
        output = (self.templates[inner].get("Outputs") or {}).get(attribute.removeprefix("Outputs."))
        return isinstance(output, dict) and self.refers_to(output.get("Value"), inner, target)

    def exported(self, name: Any, target: Resource) -> bool:
        """Whether an export of this name is made of a reference to the resource."""
        outputs = (self.templates[target.template].get("Outputs") or {}).values()
        return any(
            isinstance(o, dict)
            and (o.get("Export") or {}).get("Name") == name
            and self.refers_to(o.get("Value"), target.template, target)
            for o in outputs
        )


def _attribute(value: Mapping[str, Any]) -> tuple[Any, str]:
    """Logical id and attribute of a Fn::GetAtt, however it is written; (None, "") for anything else."""
    given = value.get("Fn::GetAtt")
    parts = given.split(".", 1) if isinstance(given, str) else given
    if not isinstance(parts, list) or len(parts) != 2 or not isinstance(parts[1], str):  # noqa: PLR2004  its form
        return None, ""
    return parts[0], parts[1]


def nested_in(template: Mapping[str, Any], assets: Mapping[str, str]) -> dict[str, str]:
    """The file of each nested stack that a template names, by logical id. assets: file by the hash in its URL."""
    found = {}
    for resource in App({"": template}).of(_NESTED):
        url = json.dumps(resource.properties.get("TemplateURL"))
        file = next((file for name, file in assets.items() if name in url), None)
        if file is not None:
            found[resource.logical_id] = file
    return found


def check(
    templates: Mapping[str, Mapping[str, Any]],
    policy: RetentionPolicy,
    nested: Mapping[tuple[str, str], str] | None = None,
) -> list[Finding]:
    """Every finding, in the order of the rules. nested: as in `App`."""
    app = App(templates, nested or {})
    return [Finding(rule.id, *found) for rule in RULES for found in rule.check(app, policy)]


def _object(value: Any) -> dict[str, Any]:
    """An object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int | None:
    """A whole number, also written as text; None for anything that is not known at synth."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return int(value)
    return int(value) if isinstance(value, str) and value.isdigit() else None


def _is_false(value: Any) -> bool:
    """Absent, or false; a value that is only known at deployment is neither."""
    return value is None or value is False or (isinstance(value, str) and value.lower() == "false")


# --- Clusters --------------------------------------------------------------------------------------------------------


def _unplanned(app: App, _policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    for cluster in app.clusters():
        if not any(_selects(app, selection, cluster) for selection in app.of(_SELECTION)):
            yield cluster, "Properties", "no AWS Backup selection of this app chooses the cluster, by ARN or by tag"


def _selects(app: App, selection: Resource, cluster: Resource) -> bool:
    """Whether a selection chooses the cluster. What cannot be known at synth is taken to."""
    chosen = selection.properties.get("BackupSelection")
    if not isinstance(chosen, dict) or not set(chosen).isdisjoint({"Fn::If", "Ref"}):
        return True
    if any(app.refers_to(one, selection.template, cluster) for one in _list(chosen.get("NotResources"))):
        return False
    named = [_names(app, one, selection, cluster) for one in _list(chosen.get("Resources"))]
    tags = _tags(cluster)
    wanted = [t for t in _list(chosen.get("ListOfTags")) if isinstance(t, dict)]
    by_tag = any(_has(tags, t.get("ConditionKey"), t.get("ConditionValue")) for t in wanted)
    # Conditions narrow what Resources names; only StringEquals is followed, the others are taken to hold.
    narrowed = [
        _has(tags, c.get("ConditionKey"), c.get("ConditionValue"))
        for c in _list(_object(chosen.get("Conditions")).get("StringEquals"))
        if isinstance(c, dict)
    ]
    return (any(named) and all(narrowed)) or by_tag


def _has(tags: Mapping[str, Any], key: Any, value: Any) -> bool:
    """Whether a resource has a tag; one that is known only at deployment is taken to be there."""
    if not (isinstance(key, str) and isinstance(value, str)):
        return True
    return tags.get(key.removeprefix("aws:ResourceTag/")) in (value, ...)


def _names(app: App, value: Any, selection: Resource, cluster: Resource) -> bool:
    if isinstance(value, str):
        identifier = cluster.properties.get("DBClusterIdentifier")
        pattern = re.escape(value).replace(r"\*", ".*")
        examples = [f"arn:aws:rds:region:account:cluster:{identifier}"] if isinstance(identifier, str) else []
        return value == "*" or value.endswith(":cluster:*") or any(re.fullmatch(pattern, e) for e in examples)
    if app.refers_to(value, selection.template, cluster):
        return True
    others = (r for r in app.clusters() if r is not cluster)
    text = json.dumps(value)
    if text.rstrip('"}] ').endswith(":cluster:*"):
        return True
    is_another = any(app.refers_to(value, selection.template, other) for other in others)
    # An import from elsewhere, or a parameter: not known here.
    return not is_another and any(word in text for word in ('"Fn::ImportValue"', '"Ref"')) and ":table" not in text


def _tags(resource: Resource) -> dict[str, Any]:
    """Tags by key; `...` stands for a value that is known only at deployment."""
    tags = [t for t in _list(resource.properties.get("Tags")) if isinstance(t, dict)]
    named = [t for t in tags if isinstance(t.get("Key"), str)]
    return {t["Key"]: t["Value"] if isinstance(t.get("Value"), str) else ... for t in named}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _short(app: App, policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    wanted = policy.automated.keep_days
    for cluster in app.clusters():
        given = cluster.properties.get("BackupRetentionPeriod", 1)
        days = _number(given)
        if days is not None and days < wanted:
            where = "Properties.BackupRetentionPeriod"
            yield cluster, where, f"automated backups are kept {days} days, the policy asks for {wanted}"


def _unprotected(app: App, _policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    for cluster in app.clusters():
        if _is_false(cluster.properties.get("DeletionProtection")):
            yield cluster, "Properties.DeletionProtection", "the cluster can be deleted by one call"


def _deleted_with_stack(app: App, _policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    for cluster in app.clusters():
        for name in ("DeletionPolicy", "UpdateReplacePolicy"):
            if cluster.attributes.get(name) == "Delete":
                yield cluster, name, f"{name} is Delete: the cluster goes with its stack, and leaves no snapshot"


def _no_customer_key(app: App, _policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    for cluster in app.clusters():
        properties = cluster.properties
        if "SnapshotIdentifier" in properties or "SourceDBClusterIdentifier" in properties:
            continue  # it is encrypted as what it was restored from
        if _is_false(properties.get("StorageEncrypted")):
            yield cluster, "Properties.StorageEncrypted", "the storage, and so every backup, is not encrypted"
        elif "KmsKeyId" not in properties:
            message = "the storage is under aws/rds: such a snapshot cannot be copied to another account"
            yield cluster, "Properties.KmsKeyId", message


def _no_tags(app: App, _policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    for cluster in app.clusters():
        if _is_false(cluster.properties.get("CopyTagsToSnapshot")):
            yield cluster, "Properties.CopyTagsToSnapshot", "snapshots will not say whose they are"


def _windows(app: App, policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    for cluster in app.clusters():
        names = ("PreferredBackupWindow", "PreferredMaintenanceWindow")
        daily, weekly = (cluster.properties.get(name) for name in names)
        if not isinstance(daily, str):
            continue  # it is AWS's choice, or known only at deployment
        try:
            # Without the other window only the backup window's own length can be judged.
            beside = weekly if isinstance(weekly, str) else _far_from(daily)
            AutomatedTier(keep_days=policy.automated.keep_days, backup_window=daily, maintenance_window=beside)
        except PolicyError as error:
            yield cluster, "Properties.PreferredBackupWindow", str(error).replace("automated.", "")


def _far_from(daily: str) -> str:
    """A maintenance window that a backup window which begins then does not meet."""
    hour = (int(daily[:2]) + 12) % 24 if daily[:2].isdigit() else 12
    return f"mon:{hour:02}:00-mon:{hour:02}:30"


def _unwatched(app: App, _policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    heard = (
        *(_tells_of_failures(r.properties) for r in app.of(_RULE)),
        *(
            a.properties.get("Namespace") == "AWS/Backup" and bool(a.properties.get("AlarmActions"))
            for a in app.of(_ALARM)
        ),
        *(_OVER in _list(_object(v.properties.get("Notifications")).get("BackupVaultEvents")) for v in app.of(_VAULT)),
    )
    if not any(heard):
        for cluster in app.clusters():
            yield cluster, "Properties", "no rule, alarm or vault of this app tells of failed AWS Backup jobs"


def _tells_of_failures(rule: Mapping[str, Any]) -> bool:
    """Whether a rule is on, has a target, and lets a failed backup job through; what only the deployment knows does."""
    pattern = _object(rule.get("EventPattern"))
    if str(rule.get("State", "ENABLED")).startswith("DISABLED") or not rule.get("Targets"):
        return False
    kinds, states = pattern.get("detail-type"), _object(pattern.get("detail")).get("state")
    return (
        _hears_of_backup(pattern.get("source"))
        and (kinds is None or _lets_through(kinds, {"Backup Job State Change"}))
        and (states is None or _lets_through(states, {"FAILED"}))
    )


def _lets_through(matchers: Any, wanted: set[str]) -> bool:
    """Whether a list of matchers has one of these texts, or a matcher that is not simple."""
    return not isinstance(matchers, list) or any(not isinstance(one, str) or one in wanted for one in matchers)


def _hears_of_backup(source: Any) -> bool:
    """Whether an event pattern's source lets AWS Backup through; a matcher that is not simple is taken to."""
    matchers = [one for one in _list(source) if isinstance(one, dict)]
    prefixes = [one["prefix"] for one in matchers if isinstance(one.get("prefix"), str)]
    return (
        "aws.backup" in _list(source)
        or any("aws.backup".startswith(prefix) for prefix in prefixes)
        or len(matchers) > len(prefixes)
    )


# --- Vaults, plans, buckets, permissions -----------------------------------------------------------------------------


def _unlocked(app: App, _policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    for vault in app.of(_VAULT):
        if "LockConfiguration" not in vault.properties:
            yield vault, "Properties.LockConfiguration", "recovery points in it can be deleted before their time"


def _vault_key(app: App, _policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    for vault in app.of(_VAULT):
        if "EncryptionKeyArn" not in vault.properties:
            yield vault, "Properties.EncryptionKeyArn", "the vault is under aws/backup, whose policy cannot be changed"


def _plan_rules(plan: Resource) -> list[dict[str, Any]]:
    body = plan.properties.get("BackupPlan")
    rules = body.get("BackupPlanRule") if isinstance(body, dict) else None
    return [rule for rule in _list(rules) if isinstance(rule, dict)]


def _plan_too_short(app: App, policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    wanted = max((rule.delete_after_days for rule in policy.snapshot_rules()), default=0)
    every = list(app.of(_PLAN))
    plans = [plan for plan in every if _is_of_aurora(app, plan)]
    kept = [_kept_days(rule) for plan in plans for rule in _plan_rules(plan)]
    if None in kept or max((days for days in kept if days is not None), default=0) >= wanted:
        return
    for plan in plans or every:
        where = "Properties.BackupPlan.BackupPlanRule"
        yield plan, where, f"no rule keeps recovery points for the {wanted} days that the policy asks for"


def _is_of_aurora(app: App, plan: Resource) -> bool:
    """Whether a plan may choose an Aurora cluster: one whose selections all choose something else does not."""
    mine = [s for s in app.of(_SELECTION) if app.refers_to(s.properties.get("BackupPlanId"), s.template, plan)]
    clusters = list(app.clusters())
    return not mine or not clusters or any(_selects(app, s, cluster) for s in mine for cluster in clusters)


def _kept_days(rule: Mapping[str, Any]) -> int | None:
    """Days; None when they are kept for ever, or that is known only at deployment."""
    lifecycle = rule.get("Lifecycle")
    return _number(lifecycle.get("DeleteAfterDays")) if isinstance(lifecycle, dict) else None


def _continuous(app: App, _policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    for plan in app.of(_PLAN):
        for n, rule in enumerate(_plan_rules(plan)):
            if rule.get("EnableContinuousBackup") is True:
                where = f"Properties.BackupPlan.BackupPlanRule.{n}.EnableContinuousBackup"
                yield (
                    plan,
                    where,
                    "AWS Backup and CloudFormation will both set BackupRetentionPeriod, and fight over it",
                )


def _lifecycle(app: App, _policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    for bucket in app.of(_BUCKET):
        lifecycle = bucket.properties.get("LifecycleConfiguration")
        for n, rule in enumerate(_list(lifecycle.get("Rules")) if isinstance(lifecycle, dict) else []):
            try:
                _as_lifecycle(_object(rule))
            except PolicyError as error:
                where = f"Properties.LifecycleConfiguration.Rules.{n}"
                yield bucket, where, f"S3 will refuse the whole lifecycle: {error}"


def _as_lifecycle(rule: Mapping[str, Any]) -> None:
    """Raises PolicyError for what S3 would refuse; what is known only at deployment is left out."""
    given = [*_list(rule.get("Transitions")), rule.get("Transition")]
    transitions = [
        (days, str(t.get("StorageClass")))
        for t in given
        if isinstance(t, dict) and (days := _number(t.get("TransitionInDays"))) is not None
    ]
    known = {c.value for c in StorageClass}
    moves = tuple(Transition(days, StorageClass(name)) for days, name in sorted(transitions) if name in known)
    expire = _number(rule.get("ExpirationInDays"))
    name = str(rule.get("Prefix") or rule.get("Id") or "the rule")
    LifecycleRule(name, expire if expire is not None else 36_500, moves)
    gone = _object(rule.get("NoncurrentVersionExpiration")).get("NoncurrentDays")
    last = _number(gone if gone is not None else rule.get("NoncurrentVersionExpirationInDays"))
    for move in (*_list(rule.get("NoncurrentVersionTransitions")), rule.get("NoncurrentVersionTransition")):
        days = _number(_object(move).get("TransitionInDays"))
        if last is not None and days is not None and last <= days:
            raise PolicyError(f"{name}: old versions must expire after their transition at {days} days, got {last}")


def _sharing(app: App, _policy: RetentionPolicy) -> Iterator[tuple[Resource, str, str]]:
    for resource in app.of(*_POLICIES):
        for where, document in _documents(resource):
            given = document.get("Statement")
            for statement in [given] if isinstance(given, dict) else _list(given):
                if isinstance(statement, dict) and _may_share(statement):
                    yield (
                        resource,
                        where,
                        "may make any snapshot public, or share it: ModifyDBClusterSnapshotAttribute on *",
                    )


def _documents(resource: Resource) -> Iterator[tuple[str, Mapping[str, Any]]]:
    inside = _POLICIES[resource.type]
    if inside is None:
        document = resource.properties.get("PolicyDocument")
        if isinstance(document, dict):
            yield "Properties.PolicyDocument", document
        return
    for n, policy in enumerate(_list(resource.properties.get(inside))):
        if isinstance(policy, dict) and isinstance(policy.get("PolicyDocument"), dict):
            yield f"Properties.{inside}.{n}.PolicyDocument", policy["PolicyDocument"]


def _may_share(statement: Mapping[str, Any]) -> bool:
    def patterns(name: str) -> list[re.Pattern[str]]:
        value = statement.get(name)
        texts = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)]
        return [re.compile(re.escape(text.lower()).replace(r"\*", ".*")) for text in texts]

    granted = any(p.fullmatch(action.lower()) for p in patterns("Action") for action in _SHARING)
    spared = patterns("NotAction")
    if "NotAction" in statement:
        granted = any(not any(p.fullmatch(action.lower()) for p in spared) for action in _SHARING)
    return statement.get("Effect") == "Allow" and granted and _every_snapshot(statement.get("Resource"))


def _every_snapshot(resource: Any) -> bool:
    """Whether a Resource names every snapshot there is: `*`, or an ARN that ends so."""
    given = resource if isinstance(resource, list) else [resource]
    texts = [one if isinstance(one, str) else json.dumps(one).rstrip('"}] ') for one in given]
    return any(text == "*" or text.endswith((":cluster-snapshot:*", ":snapshot:*")) for text in texts)


RULES: tuple[Rule, ...] = (
    Rule("BR01", "Every Aurora cluster is chosen by a backup plan", _unplanned),
    Rule("BR02", "Automated backups are kept as long as the policy says", _short),
    Rule("BR03", "Every Aurora cluster is protected from deletion", _unprotected),
    Rule("BR04", "No Aurora cluster is deleted with its stack", _deleted_with_stack),
    Rule("BR05", "Every Aurora cluster is encrypted under a customer key", _no_customer_key),
    Rule("BR06", "Tags are copied to snapshots", _no_tags),
    Rule("BR07", "Backup and maintenance windows are long enough and do not overlap", _windows),
    Rule("BR08", "Somebody hears of failed backup jobs", _unwatched),
    Rule("BR09", "Every backup vault is locked", _unlocked),
    Rule("BR10", "Every backup vault is under a customer key", _vault_key),
    Rule("BR11", "Some rule keeps recovery points as long as the policy's longest tier", _plan_too_short),
    Rule("BR12", "AWS Backup makes no continuous backup of Aurora", _continuous),
    Rule("BR13", "No lifecycle is one that S3 would refuse", _lifecycle),
    Rule("BR14", "Nobody may share every snapshot", _sharing),
)
