"""Point-in-time recovery and recovery tests: what is asked, what is refused, and the plan that is carried out. Pure.

A plan is made once, before anything is created, and stored; every later step reads it, so that a replay repeats. It
names the recovery point, the new cluster, the exact parameters of every call, and a deadline.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from aurora_backup import tags
from aurora_backup.cluster_settings import desired, instance_parameters, restore_parameters, writer_first
from aurora_backup.errors import BackupError
from aurora_backup.identifiers import IdentifierError, derive, require_identifier
from aurora_backup.policy import Tier
from aurora_backup.schedule import require_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCHEMA = 1
ENGINE = "aurora-postgresql"
SNAPSHOT_PREFIX = "on-demand"  # of every snapshot's name that is made on demand
TEST_PREFIX = "recovery-test"  # of every test copy's name: IAM lets nothing else be deleted
TO_TIME = "restore_db_cluster_to_point_in_time"
FROM_SNAPSHOT = "restore_db_cluster_from_snapshot"
# Tiers that a recovery test can restore as a cluster; dump sets have trial restores of their own.
TESTED = (Tier.AUTOMATED, Tier.WEEKLY, Tier.MONTHLY, Tier.ON_DEMAND)
_SNAPSHOT_KINDS = {Tier.WEEKLY: "awsbackup", Tier.MONTHLY: "awsbackup", Tier.ON_DEMAND: "manual"}


class RecoveryRefused(BackupError):  # noqa: N818  names say what happened, as in errors.py
    """A request was refused before anything was created. Every reason names the field, the rule and the value."""


class NoRecoveryPoint(BackupError):  # noqa: N818  names say what happened, as in errors.py
    """There is no available recovery point of the tier under test."""


class PlanError(BackupError):
    """A stored plan is malformed or of a version that this code does not know."""


class Purpose(StrEnum):
    """Why a cluster is restored: only what is made for a test is ever deleted by this package."""

    TEST = tags.RECOVERY_TEST
    RECOVERY = tags.POINT_IN_TIME_RECOVERY
    NATIVE_TEST = "native-restore-test"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is restored: a snapshot, or a time within the point-in-time window (identifier None).

    resource_id: the cluster that the snapshot was taken of; None for the source itself.
    """

    tier: str
    moment: datetime
    identifier: str | None = None
    resource_id: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "moment", require_utc(self.moment, "moment"))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One restore, decided. Times are aware UTC.

    source, source_resource_id: whose data it is. target: the new cluster. operation, parameters: the restore call, or
    None where the cluster exists already (AWS Backup restored it). settings: what the cluster must end with.
    instances: CreateDBInstance parameters, the writer first. expires: when the janitor may take it; None is never.
    """

    purpose: Purpose
    owner: str
    execution: str
    started: datetime
    deadline: datetime
    expires: datetime | None
    source: str
    source_resource_id: str
    point: Point
    target: str
    operation: str | None
    parameters: dict[str, Any]
    settings: dict[str, Any]
    instances: tuple[dict[str, Any], ...]
    skipped: dict[str, str] = field(default_factory=dict)
    restore_job: str | None = None

    @property
    def tags(self) -> dict[str, str]:
        """The tags of everything that the plan makes."""
        purpose = self.purpose if self.purpose is Purpose.RECOVERY else Purpose.TEST
        return tags.ours(self.owner, self.execution, purpose=purpose.value, expires=self.expires)

    def to_json(self) -> str:
        """The document that the steps of the workflow read."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True, default=_text)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read `to_json`'s text. Raises PlanError for another schema or a malformed document."""
        try:
            data = json.loads(text)
            if data.pop("schema") != SCHEMA:
                raise PlanError(f"plan.schema must be {SCHEMA}")
            point = data.pop("point")
            point["moment"] = datetime.fromisoformat(point["moment"])
            expires = data.pop("expires")
            return cls(
                purpose=Purpose(data.pop("purpose")),
                point=Point(**point),
                expires=expires and datetime.fromisoformat(expires),
                instances=tuple(data.pop("instances")),
                started=datetime.fromisoformat(data.pop("started")),
                deadline=datetime.fromisoformat(data.pop("deadline")),
                **data,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"plan must be a document of schema {SCHEMA}: {type(error).__name__}: {error}") from None


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not part of a plan")


@dataclass(frozen=True)
class Refusal:
    """One reason why a request is refused: the field, the rule it breaks, and the value received."""

    field: str
    rule: str
    value: object

    def __str__(self) -> str:
        return f"{self.field} must {self.rule}, got {self.value!r}"


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What RDS says when a recovery is asked for.

    source: the described cluster, as it is or as it was remembered; None when nothing is known of it.
    source_instances: likewise. earliest, latest: the restorable window. taken: identifiers that exist already.
    subnet_groups: those that were looked for and exist. quota: how many more there may be; {} when RDS did not say.
    """

    source: dict[str, Any] | None
    source_instances: tuple[dict[str, Any], ...] = ()
    deleted: bool = False
    earliest: datetime | None = None
    latest: datetime | None = None
    taken: frozenset[str] = frozenset()
    subnet_groups: frozenset[str] = frozenset()
    quota: Mapping[str, int] = field(default_factory=dict)


def restore_moment(
    request: Mapping[str, Any], situation: Situation, now: datetime
) -> tuple[Point | None, list[Refusal]]:
    """Choose the moment that a request asks for, or say why it cannot be had."""
    text, latest = request.get("target_time"), request.get("latest", False)
    if not isinstance(latest, bool):
        return None, [Refusal("latest", "be true or false", latest)]
    if (text is None) == (latest is False):
        rule = "be given, or latest be true, and not both"
        return None, [Refusal("target_time", rule, {"target_time": text, "latest": latest})]
    if latest:
        moment: datetime | Refusal = situation.latest or Refusal("latest", "have a restorable window to end at", None)
    else:
        moment = _asked_moment(text, situation, now)
    if isinstance(moment, Refusal):
        return None, [moment]
    return Point(tier=Tier.AUTOMATED.value, moment=moment), []


def _asked_moment(text: object, situation: Situation, now: datetime) -> datetime | Refusal:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return Refusal("target_time", "be an ISO 8601 time with a time zone", text)
    if moment.tzinfo is None:
        return Refusal("target_time", "have a time zone (for example a Z at its end)", text)
    if moment > now:
        return Refusal("target_time", f"not be in the future (it is {now.isoformat()})", text)
    earliest, newest = situation.earliest, situation.latest
    if earliest is None or newest is None or not earliest <= moment <= newest:
        window = f"{earliest.isoformat()} to {newest.isoformat()}" if earliest and newest else "which is empty"
        return Refusal("target_time", f"be within the restorable window {window}", text)
    return moment


_KNOWN = {
    "target_time",
    "latest",
    "target_cluster_id",
    "source_resource_id",
    "subnet_group",
    "security_groups",
    "parameter_group",
    "instance_class",
    "reason",
}


def check_request(request: Mapping[str, Any], situation: Situation, source_id: str, now: datetime) -> list[Refusal]:
    """Every reason why this recovery is refused; none means that `plan_recovery` may be called."""
    refusals = [Refusal(name, f"be one of {', '.join(sorted(_KNOWN))}", name) for name in sorted(set(request) - _KNOWN)]
    refusals += restore_moment(request, situation, now)[1]
    target = request.get("target_cluster_id")
    try:
        target = require_identifier(target, "target_cluster_id")
    except IdentifierError:
        refusals.append(Refusal("target_cluster_id", "be an RDS identifier of 1-63 letters, digits, hyphens", target))
    if target == source_id:
        refusals.append(Refusal("target_cluster_id", "differ from the source's: a recovery never replaces it", target))
    elif target in situation.taken:
        refusals.append(Refusal("target_cluster_id", "be free: a cluster of that name exists", target))
    refusals += _placement(request, situation)
    instances = max(1, len(situation.source_instances))
    for quota, needed in (("DBClusters", 1), ("DBInstances", instances)):
        left = situation.quota.get(quota)
        if left is not None and left < needed:
            refusals.append(Refusal(f"quota {quota}", f"have room for {needed} more", left))
    return refusals


def _placement(request: Mapping[str, Any], situation: Situation) -> list[Refusal]:
    refusals = []
    wanted = desired(situation.source or {})
    group = request.get("subnet_group", wanted.get("DBSubnetGroupName"))
    if not group:
        refusals.append(Refusal("subnet_group", "be given: the source's is not known", group))
    elif group not in situation.subnet_groups:
        refusals.append(Refusal("subnet_group", "exist", group))
    groups = request.get("security_groups", wanted.get("VpcSecurityGroupIds"))
    if not groups or not isinstance(groups, list) or not all(isinstance(g, str) and g for g in groups):
        refusals.append(
            Refusal("security_groups", "be a list of security group ids: the source's are not known", groups)
        )
    if not situation.source_instances and not request.get("instance_class"):
        refusals.append(Refusal("instance_class", "be given: the source's instances are not known", None))
    return refusals


def plan_recovery(
    request: Mapping[str, Any],
    situation: Situation,
    *,
    owner: str,
    source_id: str,
    source_resource_id: str,
    execution: str,
    started: datetime,
    lifetime: timedelta,
) -> Plan:
    """Plan a point-in-time recovery with the source's settings and instances.

    Raises:
        RecoveryRefused: naming every reason.

    """
    point, _ = restore_moment(request, situation, started)
    refusals = check_request(request, situation, source_id, started)
    if refusals or point is None:
        raise RecoveryRefused("refused, and nothing was created: " + "; ".join(map(str, refusals)))
    source = situation.source or {}
    target = require_identifier(request["target_cluster_id"], "target_cluster_id")
    asked = {
        "DBSubnetGroupName": request.get("subnet_group"),
        "VpcSecurityGroupIds": sorted(request.get("security_groups") or []),
        "DBClusterParameterGroupName": request.get("parameter_group"),
    }
    wanted = {**desired(source), **{name: value for name, value in asked.items() if value}}
    plan_tags = tags.ours(owner, execution, purpose=Purpose.RECOVERY.value)
    origin = (
        {"SourceDbClusterResourceId": source_resource_id}
        if situation.deleted
        else {"SourceDBClusterIdentifier": source_id}
    )
    models = writer_first(source, list(situation.source_instances)) or [{"DBInstanceClass": request["instance_class"]}]
    chosen = {"DBInstanceClass": request["instance_class"]} if request.get("instance_class") else {}
    return Plan(
        purpose=Purpose.RECOVERY,
        owner=owner,
        execution=execution,
        started=started,
        deadline=started + lifetime,
        expires=None,
        source=source_id,
        source_resource_id=source_resource_id,
        point=point,
        target=target,
        operation=TO_TIME,
        parameters={
            **restore_parameters(wanted),
            **origin,
            "DBClusterIdentifier": target,
            "RestoreToTime": point.moment.isoformat(),
            "Tags": tags.tag_list({**tags.theirs(tags.tags_of(source)), **plan_tags}),
        },
        settings=wanted,
        instances=tuple(
            _instance(target, number, {**instance_parameters(model), **chosen}, plan_tags)
            for number, model in enumerate(models, 1)
        ),
    )


def _instance(cluster: str, number: int, parameters: dict[str, Any], wanted: dict[str, str]) -> dict[str, Any]:
    return {
        **parameters,
        "DBInstanceIdentifier": derive(cluster, str(number)),
        "DBClusterIdentifier": cluster,
        "Engine": ENGINE,
        "Tags": tags.tag_list(wanted),
    }


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """Where test copies live: own subnets and a security group with no way out.

    iam: the copy is opened by IAM; otherwise by a secret of its own, because the source's may have rotated since the
    recovery point. secret_key: the KMS key of that secret.
    """

    subnet_group: str
    security_groups: tuple[str, ...]
    instance_class: str
    iam: bool
    secret_key: str | None = None


def choose_point(
    tier: Tier, cluster: Mapping[str, Any] | None, snapshots: Iterable[Mapping[str, Any]], lineage: frozenset[str]
) -> Point | None:
    """Choose the newest available recovery point of a tier, or None.

    snapshots: described cluster snapshots of any kind; only those of the lineage's resource ids count, because cluster
    names are reused. AWS Backup's carry the tier as a tag.
    """
    if tier is Tier.AUTOMATED:
        newest = cluster.get("LatestRestorableTime") if cluster else None
        return Point(tier=tier.value, moment=newest) if newest else None
    found = [
        Point(
            tier=tier.value,
            moment=s["SnapshotCreateTime"],
            identifier=_handle(s),
            resource_id=s["DbClusterResourceId"],
        )
        for s in snapshots
        if s.get("Status") == "available"
        and s.get("SnapshotCreateTime")
        and s.get("DbClusterResourceId") in lineage
        and s.get("SnapshotType") == _SNAPSHOT_KINDS.get(tier)
        and (tier is Tier.ON_DEMAND or tags.tags_of(s).get(tags.TIER) == tier.value)
    ]
    return max(found, key=lambda point: point.moment, default=None)


def _handle(snapshot: Mapping[str, Any]) -> str:
    # AWS Backup's snapshots can be restored by ARN only.
    shared = snapshot.get("SnapshotType") == "awsbackup"
    return str(snapshot["DBClusterSnapshotArn" if shared else "DBClusterSnapshotIdentifier"])


def next_tier(points: Mapping[Tier, Point | None], tested: Mapping[Tier, datetime]) -> Tier:
    """Choose the tier whose turn it is: never tested first, then the one tested longest ago.

    Raises:
        NoRecoveryPoint: no tier has one.

    """
    ready = [tier for tier, point in points.items() if point]
    if not ready:
        raise NoRecoveryPoint(f"no tier has an available recovery point: {', '.join(points)}")
    return min(ready, key=lambda tier: tested.get(tier, datetime.min.replace(tzinfo=UTC)))


def plan_test(
    point: Point,
    source: Mapping[str, Any],
    isolation: Isolation,
    *,
    owner: str,
    source_id: str,
    source_resource_id: str,
    execution: str,
    started: datetime,
    lifetime: timedelta,
    skipped: Mapping[str, str],
) -> Plan:
    """Plan a recovery test: into isolation, one instance, with an expiry, everything named after the execution."""
    target = derive(TEST_PREFIX, f"{source_id}-{execution}")
    expires = started + lifetime
    plan_tags = tags.ours(owner, execution, purpose=Purpose.TEST.value, expires=expires)
    parameters: dict[str, Any] = {
        "DBClusterIdentifier": target,
        "DBSubnetGroupName": isolation.subnet_group,
        "VpcSecurityGroupIds": list(isolation.security_groups),
        "EnableIAMDatabaseAuthentication": isolation.iam,
        "DeletionProtection": False,
        "CopyTagsToSnapshot": True,
        "Tags": tags.tag_list(plan_tags),
    }
    if group := source.get("DBClusterParameterGroup"):
        parameters["DBClusterParameterGroupName"] = group
    if isolation.instance_class == "db.serverless":
        parameters["ServerlessV2ScalingConfiguration"] = {"MinCapacity": 0.5, "MaxCapacity": 8.0}
    if point.identifier is None:
        operation = TO_TIME
        parameters |= {"SourceDBClusterIdentifier": source_id, "RestoreToTime": point.moment.isoformat()}
    else:
        operation = FROM_SNAPSHOT
        parameters |= {"SnapshotIdentifier": point.identifier, "Engine": ENGINE}
    instance = {"DBInstanceClass": isolation.instance_class, "PubliclyAccessible": False}
    return Plan(
        purpose=Purpose.TEST,
        owner=owner,
        execution=execution,
        started=started,
        deadline=_give_up(expires, lifetime),
        expires=expires,
        source=source_id,
        source_resource_id=source_resource_id,
        point=point,
        target=target,
        operation=operation,
        parameters=parameters,
        settings={} if isolation.iam else own_secret(isolation.secret_key),
        instances=(_instance(target, 1, instance, plan_tags),),
        skipped=dict(skipped),
    )


def _give_up(expires: datetime, lifetime: timedelta) -> datetime:
    """When a test stops trying: the janitor takes over when the copy expires, so an hour before."""
    return expires - min(timedelta(hours=1), lifetime / 4)


def own_secret(key: str | None) -> dict[str, Any]:
    """Give the settings that make RDS keep the new cluster's master password in a secret of its own."""
    return {"ManageMasterUserPassword": True, **({"MasterUserSecretKmsKeyId": key} if key else {})}


def plan_native_test(
    point: Point,
    cluster: Mapping[str, Any],
    *,
    restore_job: str,
    instance_class: str,
    owner: str,
    source_id: str,
    source_resource_id: str,
    execution: str,
    started: datetime,
    lifetime: timedelta,
) -> Plan:
    """Plan what AWS Backup's restore test leaves out: an instance in the cluster that it restored."""
    target = str(cluster["DBClusterIdentifier"])
    expires = started + lifetime
    plan_tags = tags.ours(owner, execution, purpose=Purpose.TEST.value, expires=expires)
    instance = {"DBInstanceClass": instance_class, "PubliclyAccessible": False}
    made = _instance(target, 1, instance, plan_tags)
    return Plan(
        purpose=Purpose.NATIVE_TEST,
        owner=owner,
        execution=execution,
        started=started,
        deadline=_give_up(expires, lifetime),
        expires=expires,
        source=source_id,
        source_resource_id=source_resource_id,
        point=point,
        target=target,
        operation=None,
        parameters={},
        settings={},
        instances=({**made, "DBInstanceIdentifier": derive(target, execution)},),
        restore_job=restore_job,
    )
