"""What the recovery functions may do, as statements. Nothing but `delete_test_copies` deletes a cluster or an instance,
and it can name only test copies that carry our tags: whose they are, and what for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from aws_cdk import ArnFormat, Aws, Stack

from aurora_backup.recovery import SNAPSHOT_PREFIX, TEST_PREFIX
from aurora_backup.tags import OWNER, PURPOSE, RECOVERY_TEST
from cdk_aurora_backup.permissions import Statement, statement

if TYPE_CHECKING:
    from aws_cdk import aws_s3 as s3
    from constructs import IConstruct

    from cdk_aurora_backup.cluster import ClusterDetails
    from cdk_aurora_backup.functions import BackupFunctions

Kind = Literal["cluster", "db", "cluster-snapshot", "cluster-auto-backup", "subgrp"]
_DESCRIBED: dict[Kind, str] = {
    "cluster": "DescribeDBClusters",
    "db": "DescribeDBInstances",
    "cluster-snapshot": "DescribeDBClusterSnapshots",
    "cluster-auto-backup": "DescribeDBClusterAutomatedBackups",
    "subgrp": "DescribeDBSubnetGroups",
}
_DOCUMENTS = "compliance-backups/evidence/*"
_NATIVE_PREFIX = "awsbackup-restore-test"
_OBJECTS = "Objects are named at run time; limited to this package's prefixes."
_NAMES = "Groups and snapshots are named at run time; limited to this account, Region and kind, and to our tag."


def _arn(scope: IConstruct, kind: str, name: str) -> str:
    return Stack.of(scope).format_arn(
        service="rds", resource=kind, resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME
    )


def documents(bucket: s3.IBucket, *, write: bool = True) -> list[Statement]:
    """Read and write baselines, plans, reports and creation records; write: False only reads them."""
    objects = [bucket.arn_for_objects(pattern) for pattern in (_DOCUMENTS, "ledger/*")]
    actions = ["s3:GetObject", *(["s3:PutObject"] if write else [])]
    return [
        statement("Documents", actions, objects, wildcard=_OBJECTS),
        statement("ListDocuments", ["s3:ListBucket"], [bucket.bucket_arn]),
    ]


def describe(scope: IConstruct, *kinds: Kind, quotas: bool = False) -> list[Statement]:
    """Look at these kinds of things; quotas: and at how much of them the account may have."""
    found = [
        statement(
            "Describe",
            [f"rds:{_DESCRIBED[kind]}" for kind in kinds],
            [_arn(scope, kind, "*") for kind in kinds],
            wildcard="RDS describes lists; nothing is changed.",
        )
    ]
    if quotas:
        action = "rds:DescribeAccountAttributes"
        found.append(statement("Quotas", [action], ["*"], wildcard="DescribeAccountAttributes knows no resources."))
    return found


def snapshot(target: ClusterDetails, scope: IConstruct) -> list[Statement]:
    """Make manual snapshots of the cluster, with our tags."""
    made = _arn(scope, "cluster-snapshot", f"{SNAPSHOT_PREFIX}-*")
    actions = ["rds:CreateDBClusterSnapshot", "rds:AddTagsToResource"]
    return [
        statement("Snapshot", ["rds:CreateDBClusterSnapshot"], [target.arn]),
        statement("TagSnapshot", actions, [made], wildcard="Snapshots are named after the execution that makes them."),
    ]


def restore(functions: BackupFunctions, purpose: str) -> list[Statement]:
    """Restore into new clusters and make their instances, only with our owner and purpose as tags.

    Clusters and instances of a test can only be named as tests are.
    """
    target = functions.target
    test = purpose == RECOVERY_TEST
    name = f"{TEST_PREFIX}-*" if test else "*"
    cluster, instance = _arn(functions, "cluster", name), _arn(functions, "db", name)
    others = [_arn(functions, kind, "*") for kind in ("cluster-snapshot", "cluster-pg", "pg", "subgrp", "og")]
    by_request, by_tag = (_tagged(kind, functions, purpose) for kind in ("RequestTag", "ResourceTag"))
    restores = ["rds:RestoreDBClusterFromSnapshot"] if test else []
    kept = [] if test else [_arn(functions, "cluster-auto-backup", "*")]
    made = statement(
        "Restore",
        [*restores, "rds:RestoreDBClusterToPointInTime", "rds:CreateDBInstance", "rds:AddTagsToResource"],
        [cluster, instance, *others, *kept, target.arn],
        by_request,
        wildcard=_NAMES,
    )
    settle = statement(
        "Settle", ["rds:ModifyDBCluster"], [cluster], by_tag, wildcard="Limited to what carries our tags."
    )
    groups = statement(
        "SettleGroups",
        ["rds:ModifyDBCluster"],
        [_arn(functions, "cluster-pg", "*"), _arn(functions, "og", "*")],
        wildcard="The parameter group is the source's, known at run time.",
    )
    # `Restore` may tag what it makes, and what has our tags may be modified: never the source.
    never = ["rds:AddTagsToResource", "rds:ModifyDBCluster"]
    spared = Statement(sid="SpareSource", actions=never, resources=[target.arn], deny=True)
    return [made, settle, *([] if test else [groups]), spared, *_own_secret(functions), *_keys(functions)]


def add_instance(functions: BackupFunctions) -> Statement:
    """Make an instance of ours in what AWS Backup's restore tests restored."""
    native = [_arn(functions, kind, f"{_NATIVE_PREFIX}*") for kind in ("cluster", "db")]
    return statement(
        "AddInstance",
        ["rds:CreateDBInstance", "rds:AddTagsToResource"],
        [*native, *(_arn(functions, kind, "*") for kind in ("pg", "subgrp", "og"))],
        _tagged("RequestTag", functions, RECOVERY_TEST),
        wildcard=_NAMES,
    )


def _tagged(kind: str, functions: BackupFunctions, purpose: str) -> dict[str, dict[str, str]]:
    """The condition that holds a statement to what this owner makes, or has made, for a purpose."""
    return {"StringEquals": {f"aws:{kind}/{OWNER}": functions.owner, f"aws:{kind}/{PURPOSE}": purpose}}


def _own_secret(functions: BackupFunctions) -> list[Statement]:
    """What RDS needs of its caller to keep a new cluster's master password in a secret."""
    if not functions.target.secret:
        return []
    secrets = Stack.of(functions).format_arn(
        service="secretsmanager",
        resource="secret",
        resource_name="rds!cluster-*",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
    return [
        statement(
            "KeepSecret",
            ["secretsmanager:CreateSecret", "secretsmanager:TagResource"],
            [secrets],
            wildcard="RDS names the secrets that it manages after the new cluster.",
        ),
    ]


def _keys(functions: BackupFunctions) -> list[Statement]:
    keys = list(
        dict.fromkeys([functions.key.key_arn, *([functions.target.key.key_arn] if functions.target.key else [])])
    )
    via = {"StringEquals": {"kms:ViaService": f"rds.{Aws.REGION}.{Aws.URL_SUFFIX}"}}
    return [
        statement(
            "ClusterKey",
            ["kms:DescribeKey", "kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext"],
            keys,
            via,
        ),
        statement("ClusterKeyGrants", ["kms:CreateGrant"], keys, {"Bool": {"kms:GrantIsForAWSResource": "true"}}),
    ]


def pass_monitoring_role(functions: BackupFunctions) -> Statement:
    """Give new instances the source's enhanced monitoring role."""
    roles = Stack.of(functions).format_arn(service="iam", region="", resource="role", resource_name="*")
    return statement(
        "PassMonitoringRole",
        ["iam:PassRole"],
        [roles],
        {"StringEquals": {"iam:PassedToService": "monitoring.rds.amazonaws.com"}},
        wildcard="The role is the source instance's, known at run time; only enhanced monitoring can get it.",
    )


def delete_test_copies(functions: BackupFunctions) -> Statement:
    """Delete test copies of this owner: by name and by tags. The function asks for the creation record as well."""
    return statement(
        "DeleteTestCopies",
        ["rds:DeleteDBCluster", "rds:DeleteDBInstance"],
        [_arn(functions, kind, f"{TEST_PREFIX}-*") for kind in ("cluster", "db")],
        _tagged("ResourceTag", functions, RECOVERY_TEST),
        wildcard="Test copies are named after the execution that makes them.",
    )


def delete_added_instances(functions: BackupFunctions) -> Statement:
    """Delete the instances that were added to AWS Backup's test copies; the copies are its own."""
    return statement(
        "DeleteAddedInstances",
        ["rds:DeleteDBInstance"],
        [_arn(functions, "db", f"{_NATIVE_PREFIX}*")],
        _tagged("ResourceTag", functions, RECOVERY_TEST),
        wildcard="Instances are named after the cluster that AWS Backup restored and the execution.",
    )


def forget_records(bucket: s3.IBucket) -> Statement:
    """Close the creation records of what is gone."""
    objects = [bucket.arn_for_objects(f"ledger/{kind}/*") for kind in ("cluster", "instance")]
    return statement("CloseRecords", ["s3:DeleteObject"], objects, wildcard=_OBJECTS)


def read_own_secret(functions: BackupFunctions, *, test: bool) -> list[Statement]:
    """Read the master secret that RDS keeps for a restored cluster; a test's reader only those of test copies."""
    if not functions.target.secret:
        return []
    secrets = Stack.of(functions).format_arn(
        service="secretsmanager",
        resource="secret",
        resource_name="rds!cluster-*",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
    owner = _arn(functions, "cluster", f"{TEST_PREFIX}-*" if test else "*")
    return [
        statement(
            "ReadRestoredSecret",
            ["secretsmanager:GetSecretValue"],
            [secrets],
            {"StringLike": {"secretsmanager:ResourceTag/aws:rds:primaryDBClusterArn": owner}},
            wildcard="RDS names the secrets that it manages after the new cluster.",
        )
    ]


def connect_to_restored(functions: BackupFunctions, role: str) -> Statement:
    """Log in by IAM to a cluster whose resource id is not known before it is restored."""
    user = Stack.of(functions).format_arn(
        service="rds-db", resource="dbuser", resource_name=f"*/{role}", arn_format=ArnFormat.COLON_RESOURCE_NAME
    )
    return statement(
        "ConnectToRestored",
        ["rds-db:connect"],
        [user],
        wildcard="A restored cluster's resource id is new; the security group lets only restored copies be reached.",
    )
