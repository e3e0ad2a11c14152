"""A healthy system as the gatherer would see it, for the tests of checks, reports and pages to take apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from aurora_backup.compliance import Expected
from aurora_backup.compliance_facts import SCHEMA, observed
from aurora_backup.policy import RetentionPolicy

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
AT = NOW + timedelta(seconds=40)
ACCOUNT = "1" * 12
REGION = f"eu-west-1:{ACCOUNT}"
KEY = f"arn:aws:kms:{REGION}:key/backup"
CLUSTER = f"arn:aws:rds:{REGION}:cluster:clinic"
BREAK_GLASS = f"arn:aws:iam::{ACCOUNT}:role/break-glass"
ADMIN = f"arn:aws:iam::{ACCOUNT}:user/admin"
RESTORER = f"arn:aws:iam::{ACCOUNT}:role/restore"
SWEEPER = f"arn:aws:iam::{ACCOUNT}:role/sweep"
EVERYTHING = ("key", "recovery-points", "snapshots", "sets", "governance", "cluster")
RESOURCE = "cluster-ABC"

EXPECTED = Expected(
    owner="Stack-Backup",
    cluster_id="clinic",
    lineage=(RESOURCE,),
    bucket="backups",
    key_arn=KEY,
    policy=RetentionPolicy.hipaa(),
    vault="vault",
    plan_id="plan",
    topic_arn=f"arn:aws:sns:{REGION}:alerts",
    log_groups=("Stack-",),
    workflows={"LogicalBackup": f"arn:aws:states:{REGION}:stateMachine:logical"},
    read_back=f"arn:aws:lambda:{REGION}:function:read-back",
    restore=f"arn:aws:lambda:{REGION}:function:restore",
    rules=("hourly",),
    lock_days=(7, 3000),
    copy_vaults=("copies",),
    vault_locked=True,
    vault_denies_deletion=True,
    deleters=(SWEEPER,),
    break_glass=(BREAK_GLASS,),
)


EVIDENCE = "compliance-backups/evidence"
DOCUMENTS = [
    {"key": f"{EVIDENCE}/{name}", "sha256": digit * 64, "bytes": 100}
    for name, digit in (
        ("holds/Stack-Backup/20261107T020003.000000Z-aaaaaaaaaaaa.json", "a"),
        ("recovery-tests/monthly/2026-11-02T071600.000000Z_test.json", "b"),
        ("retention/Stack-Backup/2026-11-23-run/plan.json", "c"),
    )
]


COSTS = {
    "at": "2026-11-23T04:00:00+00:00",
    "region": "eu-west-1",
    "as_of": "2026-11-23",
    "currency": "USD",
    "problem": None,
    "tiers": [
        {"tier": "logical", "kind": "set", "count": 12, "gb": 60.0, "cost": 1.38},
        {"tier": "weekly", "kind": "recovery-point", "count": 12, "gb": 6000.0, "cost": 126.0},
    ],
}


def iso(moment: datetime) -> str:
    return moment.isoformat()


def snapshot_point(tier: str, created: datetime, days: int) -> dict:
    return {
        "arn": f"arn:aws:rds:{REGION}:cluster-snapshot:awsbackup:{tier}-{created:%Y%m%d}",
        "status": "COMPLETED",
        "created": iso(created),
        "encrypted": True,
        "key": KEY,
        "delete_at": iso(created + timedelta(days=days)),
        "tier": tier,
    }


def dump_set(started: datetime, *, newest: bool = False) -> dict:
    tier = {"ok": True, "detail": "2 archives", "at": iso(started + timedelta(minutes=5))}
    tiers = {"s3-checksum": tier, "full-decode": tier}
    return {
        "set": f"logical-backups/{RESOURCE}/clinic/{started:%Y%m%dT%H%M%SZ}/",
        "prefix": "logical-backups",
        "database": "clinic",
        "started": iso(started),
        "newest": newest,
        "manifest": {"ok": True, "problem": None, "bytes": 5000, "seconds": 60},
        "verification": {**tiers, "trial-restore": tier} if newest else tiers,
    }


def lifecycle_rule(prefix: str, **does: object) -> dict:
    """An enabled rule that does nothing but what is given; as it is, housekeeping."""
    nothing = dict.fromkeys(("expire_days", "expire_date", "noncurrent_days"))
    moves: dict[str, list] = {"transitions": [], "noncurrent_transitions": []}
    return {"status": "Enabled", "prefix": prefix, "narrowed_by": [], **nothing, **moves, **does}


def plan_rule(name: str, schedule: str, days: int) -> dict:
    return {"name": name, "vault": "vault", "schedule": schedule, "delete_after_days": days}


def policy_document(*statements: dict) -> dict:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def deny_but_break_glass(*actions: str) -> dict:
    return {
        "Effect": "Deny",
        "Principal": "*",
        "Action": list(actions),
        "Resource": "*",
        "Condition": {"ArnNotEquals": {"aws:PrincipalArn": BREAK_GLASS}},
    }


def healthy(now: datetime = NOW, at: datetime = AT) -> dict:
    """A new facts document; change what you like."""
    weekly = [datetime(2026, 11, 22, 2, 5, tzinfo=UTC) - timedelta(weeks=n) for n in range(12)]
    monthly = [datetime(2026, month, 1, 1, 5, tzinfo=UTC) for month in (9, 10, 11)]
    dumps = [datetime(2026, 11, 21, 2, 0, 3, tzinfo=UTC) - timedelta(weeks=n) for n in range(12)]
    deployed = datetime(2026, 8, 30, 12, 0, tzinfo=UTC)
    sets = [dump_set(started, newest=started == dumps[0]) for started in dumps]
    archive = sets[0]["set"] + "0000.dump"
    stored = {
        "bytes": 5000,
        "crc32": "AAAAAA==",
        "version": "v1",
        "encryption": "aws:kms",
        "key": KEY,
    }
    manifest = {**stored, "bytes": 900, "crc32": None, "version": "v2"}
    values = {
        "cluster": (
            "rds:DescribeDBClusters",
            {
                "identifier": "clinic",
                "arn": CLUSTER,
                "resource_id": RESOURCE,
                "created": iso(deployed),
                "encrypted": True,
                "key": KEY,
                "retention_days": 35,
                "deletion_protection": True,
                "copy_tags": True,
                "earliest": iso(now - timedelta(days=35)),
                "latest": iso(now - timedelta(minutes=4)),
            },
        ),
        "cluster-parameters": ("rds:DescribeDBClusterParameters", {"rds.force_ssl": "1"}),
        "keys": (
            "kms:DescribeKey",
            [{"arn": KEY, "manager": "CUSTOMER", "state": "Enabled", "deletion_date": None, "problem": None}],
        ),
        "key-rotation": ("kms:GetKeyRotationStatus", {"enabled": True}),
        "key-policy": (
            "kms:GetKeyPolicy",
            {
                "document": policy_document(
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                        "Action": "kms:*",
                        "Resource": "*",
                    },
                    deny_but_break_glass("kms:ScheduleKeyDeletion", "kms:DisableKey"),
                )
            },
        ),
        "identities": (
            "iam:GetAccountAuthorizationDetails",
            {
                "principals": [
                    {"arn": BREAK_GLASS, "may": dict.fromkeys(("key", "recovery-points", "snapshots"), "always")},
                    {"arn": ADMIN, "may": dict.fromkeys(EVERYTHING, "always")},
                    {"arn": SWEEPER, "may": {"snapshots": "sometimes"}},
                ],
                "unread": [],
            },
        ),
        "snapshots": (
            "rds:DescribeDBClusterSnapshots",
            [
                {"id": "manual-1", "arn": "snapshot:manual-1", "kind": "manual", "status": "available"}
                | {"encrypted": True, "key": KEY},
                {"id": "rds:clinic-1", "arn": "snapshot:rds:clinic-1", "kind": "automated", "status": "available"}
                | {"encrypted": True, "key": KEY},
            ],
        ),
        "snapshot-sharing": ("rds:DescribeDBClusterSnapshotAttributes", [{"id": "manual-1", "shared_with": []}]),
        "vault": (
            "backup:DescribeBackupVault",
            {"name": "vault", "key": KEY, "locked": True, "min_days": 7, "max_days": 3000},
        ),
        "vault-policy": (
            "backup:GetBackupVaultAccessPolicy",
            {"document": policy_document(deny_but_break_glass("backup:DeleteRecoveryPoint"))},
        ),
        "recovery-points": (
            "backup:ListRecoveryPointsByBackupVault",
            [snapshot_point("weekly", w, 180) for w in weekly] + [snapshot_point("monthly", m, 2192) for m in monthly],
        ),
        "copies": (
            "backup:ListRecoveryPointsByBackupVault",
            [{"arn": "recovery-point:copy-1", "encrypted": True, "key": KEY}],
        ),
        "plan": (
            "backup:GetBackupPlan",
            {
                "created": iso(deployed),
                "rules": [
                    plan_rule("weekly", "cron(0 2 ? * SUN *)", 180),
                    plan_rule("hourly", "cron(0 * * * ? *)", 7),
                    plan_rule("monthly", "cron(0 1 1 * ? *)", 2192),
                ],
            },
        ),
        "selections": (
            "backup:GetBackupSelection",
            [{"name": "Cluster", "resources": [CLUSTER], "not_resources": [], "narrowed_by": []}],
        ),
        "region-settings": ("backup:DescribeRegionSettings", {"Aurora": True}),
        "backup-jobs": (
            "backup:ListBackupJobs",
            [
                {"id": "job-1", "state": "FAILED", "created": iso(weekly[1])},
                {"id": "job-2", "state": "COMPLETED", "created": iso(weekly[0])},
            ],
        ),
        "bucket-encryption": ("s3:GetEncryptionConfiguration", {"algorithm": "aws:kms", "key": KEY}),
        "bucket-lifecycle": (
            "s3:GetLifecycleConfiguration",
            [
                {
                    "status": "Enabled",
                    "prefix": rule.prefix,
                    "narrowed_by": [],
                    "expire_days": rule.expire_days,
                    "expire_date": None,
                    "noncurrent_days": rule.noncurrent_days,
                    "transitions": [
                        {"days": t.days, "date": None, "storage_class": t.storage_class.value} for t in rule.transitions
                    ],
                    "noncurrent_transitions": [],
                }
                for rule in EXPECTED.policy.lifecycle_rules()
            ]
            + [lifecycle_rule("")],
        ),
        "bucket-versioning": ("s3:GetBucketVersioning", {"status": "Enabled"}),
        "bucket-lock": ("s3:GetBucketObjectLockConfiguration", {"enabled": True}),
        "bucket-public-access": (
            "s3:GetBucketPublicAccessBlock",
            {
                "block_public_acls": True,
                "ignore_public_acls": True,
                "block_public_policy": True,
                "restrict_public_buckets": True,
            },
        ),
        "bucket-policy": (
            "s3:GetBucketPolicy",
            {
                "document": policy_document(
                    {
                        "Effect": "Deny",
                        "Principal": {"AWS": "*"},
                        "Action": "s3:*",
                        "Resource": ["arn:aws:s3:::backups", "arn:aws:s3:::backups/*"],
                        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                    }
                )
            },
        ),
        "topic": ("sns:GetTopicAttributes", {"key": KEY}),
        "log-groups": ("logs:DescribeLogGroups", [{"name": "Stack-Dump", "key": KEY}]),
        "sets": ("s3:ListBucket, s3:GetObject", sets),
        "objects": (
            "s3:GetObject",
            [
                {
                    "key": archive,
                    "recorded": {"bytes": 5000, "crc32": "AAAAAA==", "version": "v1"},
                    "found": stored,
                    "problem": None,
                },
                {
                    "key": sets[0]["set"] + "manifest.json",
                    "recorded": None,
                    "found": manifest,
                    "problem": None,
                },
            ],
        ),
        "recent-objects": (
            "s3:ListBucket, s3:GetObject",
            {
                "since": iso(now - timedelta(days=8)),
                "groups": [{"encryption": "aws:kms", "key": KEY, "objects": 40, "some": [archive, "registers/a.json"]}],
                "unread": [],
            },
        ),
        "read-back": (
            "lambda:InvokeFunction, lambda:GetFunctionConfiguration",
            {
                "role": RESTORER,
                "restores_under": RESTORER,
                "objects": [
                    {"key": key, "state": "read", "problem": None}
                    for key in (archive, sets[0]["set"] + "manifest.json")
                ],
            },
        ),
        "recovery-tests": (
            "s3:GetObject",
            [
                {
                    "finished": iso(datetime(2026, month, 2, 7, 44, tzinfo=UTC)),
                    "outcome": outcome,
                    "tier": tier,
                    "rto_seconds": 1680,
                    "rpo_seconds": 240,
                }
                for month, outcome, tier in (
                    (9, "RESTORED", "weekly"),
                    (10, "DAMAGED", "logical"),
                    (11, "RESTORED", "monthly"),
                )
            ],
        ),
        "workflows": ("states:DescribeStateMachine", [{"name": "LogicalBackup", "created": iso(deployed)}]),
        "executions": (
            "states:ListExecutions",
            [
                {"workflow": "LogicalBackup", "name": f"run-{n}", "status": status, "started": iso(started)}
                for n, (started, status) in enumerate(zip(dumps[:3], ("SUCCEEDED", "SUCCEEDED", "FAILED"), strict=True))
            ],
        ),
        "previous": (
            "s3:GetObject",
            {
                "created": iso(now - timedelta(days=1)),
                "points": [
                    {
                        "stream": "logical",
                        "series": "clinic",
                        "id": item["set"],
                        "created": item["started"],
                        "until": iso(datetime.fromisoformat(item["started"]) + timedelta(days=90)),
                    }
                    for item in sets
                ],
                "documents": [dict(row) for row in DOCUMENTS[:2]],
            },
        ),
        "storage": ("s3:GetObject", {"bytes": None, "costs": COSTS}),
        "documents": ("s3:ListBucket, s3:GetObject", [dict(row) for row in DOCUMENTS]),
        "legal-holds": (
            "s3:GetObject",
            [{"what": sets[3]["set"], "matter": "2026-17", "since": iso(dumps[2]), "by": "counsel"}],
        ),
    }
    return {
        "schema": SCHEMA,
        "observations": {name: observed(call, at, value) for name, (call, value) in values.items()},
    }
