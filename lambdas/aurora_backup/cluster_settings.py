"""What a restore does not carry over: read from the source, given to the restore, applied afterwards, compared. Pure.

Restored clusters get the default parameter group, the default security group, no log exports, no deletion protection
and no instance ("Restoring a DB cluster"); this table says where each setting is read and by which call it is set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aurora_backup.tags import tags_of, theirs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Described = Mapping[str, Any]


def _groups(cluster: Described) -> list[str]:
    return sorted(str(group["VpcSecurityGroupId"]) for group in cluster.get("VpcSecurityGroups") or [])


def _exports(cluster: Described) -> list[str]:
    return sorted(cluster.get("EnabledCloudwatchLogsExports") or [])


def _scaling(cluster: Described) -> dict[str, Any] | None:
    scaling = cluster.get("ServerlessV2ScalingConfiguration")
    known = ("MinCapacity", "MaxCapacity", "SecondsUntilAutoPause")
    return {key: scaling[key] for key in known if key in scaling} if scaling else None


def _plain(name: str) -> Callable[[Described], Any]:
    return lambda cluster: cluster.get(name)


def _has_secret(cluster: Described) -> bool | None:
    return bool(cluster.get("MasterUserSecret")) or None


@dataclass(frozen=True)
class Setting:
    """name: also the parameter's. read: from DescribeDBClusters. at_restore, by_modify: which call takes it.

    on_instance: it takes effect in the database, so an instance has to be there first.
    """

    name: str
    read: Callable[[Described], Any]
    at_restore: bool = True
    by_modify: bool = True
    on_instance: bool = False


SETTINGS = (
    Setting("DBSubnetGroupName", _plain("DBSubnetGroup"), by_modify=False),
    Setting("StorageType", _plain("StorageType"), by_modify=False),
    Setting("Port", _plain("Port"), by_modify=False),
    Setting("DBClusterParameterGroupName", _plain("DBClusterParameterGroup")),
    Setting("VpcSecurityGroupIds", _groups),
    Setting("EnableIAMDatabaseAuthentication", _plain("IAMDatabaseAuthenticationEnabled")),
    Setting("EnableCloudwatchLogsExports", _exports),
    Setting("DeletionProtection", _plain("DeletionProtection")),
    Setting("CopyTagsToSnapshot", _plain("CopyTagsToSnapshot")),
    Setting("ServerlessV2ScalingConfiguration", _scaling),
    # Restore calls do not take it: the secret is made afterwards, with the password that it sets.
    Setting("ManageMasterUserPassword", _has_secret, at_restore=False, on_instance=True),
    Setting("BackupRetentionPeriod", _plain("BackupRetentionPeriod"), at_restore=False),
    Setting("PreferredBackupWindow", _plain("PreferredBackupWindow"), at_restore=False),
    Setting("PreferredMaintenanceWindow", _plain("PreferredMaintenanceWindow"), at_restore=False),
)
# What no call of ours sets again, by what the source shows, and what the operator has to do.
_BY_HAND: tuple[tuple[Callable[[Described], Any], str], ...] = (
    (
        lambda c: c.get("MasterUserSecret"),
        (
            "the master password is new, in the new cluster's own secret (secret_arn here): "
            "point applications and rotation to it"
        ),
    ),
    (lambda c: c.get("AssociatedRoles"), "associate the source's IAM roles: aws rds add-role-to-db-cluster"),
    (lambda c: c.get("HttpEndpointEnabled"), "switch the Data API on: aws rds enable-http-endpoint"),
    (lambda c: c.get("CustomEndpoints"), "make the custom endpoints again"),
    (lambda c: c.get("GlobalClusterIdentifier"), "the global database does not include the new cluster"),
    (
        lambda c: c.get("ActivityStreamStatus") not in {None, "stopped"},
        "start the database activity stream again: aws rds start-activity-stream",
    ),
)


def desired(cluster: Described) -> dict[str, Any]:
    """Read the settings that a restored cluster should have, from the source's description."""
    values = {setting.name: setting.read(cluster) for setting in SETTINGS}
    values["MasterUserSecretKmsKeyId"] = (cluster.get("MasterUserSecret") or {}).get("KmsKeyId")
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def restore_parameters(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Choose what the restore call itself takes."""
    taken = {setting.name for setting in SETTINGS if setting.at_restore}
    return {name: value for name, value in wanted.items() if name in taken}


def changes(wanted: Mapping[str, Any], cluster: Described, *, on_instance: bool) -> dict[str, Any]:
    """Find the ModifyDBCluster parameters that are still needed; empty when nothing differs.

    on_instance: those that an instance has to be there for, or those that need none.
    """
    found: dict[str, Any] = {}
    for setting in SETTINGS:
        if not setting.by_modify or setting.on_instance is not on_instance or setting.name not in wanted:
            continue
        now, then = setting.read(cluster), wanted[setting.name]
        if now == then or (setting.name in (cluster.get("PendingModifiedValues") or {})):
            continue
        if setting.name == "EnableCloudwatchLogsExports":
            missing = sorted(set(then) - set(now))
            extra = sorted(set(now) - set(then))
            lists = {"EnableLogTypes": missing, "DisableLogTypes": extra}
            found["CloudwatchLogsExportConfiguration"] = {k: v for k, v in lists.items() if v}
        else:
            found[setting.name] = then
    if "ManageMasterUserPassword" in found and "MasterUserSecretKmsKeyId" in wanted:
        found["MasterUserSecretKmsKeyId"] = wanted["MasterUserSecretKmsKeyId"]
    return found


def differences(source: Described, restored: Described) -> dict[str, dict[str, Any]]:
    """Compare two clusters by setting, tags included: {setting: {"source", "restored"}} for those that differ."""
    pairs = {setting.name: (setting.read(source), setting.read(restored)) for setting in SETTINGS}
    pairs["Tags"] = (theirs(tags_of(source)), theirs(tags_of(restored)))
    pairs["KmsKeyId"] = (source.get("KmsKeyId"), restored.get("KmsKeyId"))
    pairs["EngineVersion"] = (source.get("EngineVersion"), restored.get("EngineVersion"))
    return {name: {"source": a, "restored": b} for name, (a, b) in pairs.items() if a != b}


def by_hand(source: Described) -> list[str]:
    """Say what the operator still has to do, from what the source has."""
    todo = [text for there, text in _BY_HAND if there(source)]
    return [*todo, "point applications to the new endpoint (DNS record, parameter, or rename the clusters)"]


def instance_parameters(instance: Described) -> dict[str, Any]:
    """Choose the CreateDBInstance parameters that make an instance like this one; never publicly accessible."""
    names = ("DBInstanceClass", "PromotionTier", "AutoMinorVersionUpgrade", "CACertificateIdentifier")
    found = {name: instance[name] for name in names if instance.get(name) is not None}
    if groups := instance.get("DBParameterGroups"):
        found["DBParameterGroupName"] = groups[0]["DBParameterGroupName"]
    if instance.get("MonitoringInterval"):
        found["MonitoringInterval"] = instance["MonitoringInterval"]
        found["MonitoringRoleArn"] = instance["MonitoringRoleArn"]
    if instance.get("PerformanceInsightsEnabled"):
        found["EnablePerformanceInsights"] = True
        for name in ("PerformanceInsightsKMSKeyId", "PerformanceInsightsRetentionPeriod"):
            if instance.get(name):
                found[name] = instance[name]
    return {**found, "PubliclyAccessible": False}


def writer_first(cluster: Described, instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order a cluster's instances: the writer, then readers by promotion tier and name."""
    writers = {m["DBInstanceIdentifier"] for m in cluster.get("DBClusterMembers") or [] if m.get("IsClusterWriter")}
    return sorted(
        instances,
        key=lambda i: (
            i["DBInstanceIdentifier"] not in writers,
            i.get("PromotionTier", 1),
            i["DBInstanceIdentifier"],
        ),
    )
