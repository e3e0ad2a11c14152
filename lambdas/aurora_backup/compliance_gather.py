"""Gathers the facts of a compliance report: one method for each question, no verdicts.

Every method asks AWS and gives the answer in the shape that the checks read (see compliance_facts). What fails becomes
an observation that failed; nothing is guessed, and a listing counts only when its last page was read. No method opens a
database: no row of a table can get into a report.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aurora_backup.checks_completion import WINDOW
from aurora_backup.checks_encryption import MISSING, OVERLAP, recent_since
from aurora_backup.compliance_facts import SCHEMA, observed, unobserved
from aurora_backup.compliance_principals import who_may
from aurora_backup.compliance_report import KIND
from aurora_backup.errors import BackupError, ManifestError, cause
from aurora_backup.evidence import REGISTERS, sha256
from aurora_backup.forecast import size_from_plan
from aurora_backup.inventory import aws_backup_points
from aurora_backup.manifest import NAME, VERIFICATION_NAME, parse_set_key
from aurora_backup.policy import Prefix
from aurora_backup.rds import Rds
from aurora_backup.sets import read_manifest, set_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from botocore.exceptions import ClientError

    from aurora_backup.compliance import Expected
    from aurora_backup.evidence import Document
    from aurora_backup.evidence_store import EvidenceStore
    from aurora_backup.holds import HoldKeeper
    from aurora_backup.manifest import Manifest
    from aurora_backup.s3 import Bucket

_log = logging.getLogger(__name__)
SERVICES = ("rds", "backup", "kms", "sns", "logs", "stepfunctions", "iam", "lambda")
_READERS = 8  # small objects read side by side
_TESTS = 40  # recovery-test reports that are looked at
_PLAN_ROOT = f"{Prefix.COMPLIANCE.value}/evidence/retention/"
_TEST_ROOT = f"{Prefix.COMPLIANCE.value}/evidence/recovery-tests/"
_EXAMPLES = 3  # keys that stand for a group of objects
_NOTHING = {
    "NoSuchBucketPolicy",
    "NoSuchLifecycleConfiguration",
    "NoSuchPublicAccessBlockConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "ServerSideEncryptionConfigurationNotFoundError",
    "ResourceNotFoundException",
}


class Gatherer:
    """Asks one account and Region about one cluster's backups.

    clients: boto3's, by service. clock: gives the time of each call, aware.
    """

    def __init__(
        self,
        clients: Mapping[str, Any],
        bucket: Bucket,
        expected: Expected,
        *,
        evidence: EvidenceStore,
        holds: HoldKeeper,
        clock: Callable[[], datetime],
    ) -> None:
        self._clients, self._bucket, self._expected = clients, bucket, expected
        self._rds = Rds(clients["rds"])
        self._evidence, self._holds, self._clock = evidence, holds, clock
        self._keys: set[str] = {expected.key_arn}
        self._cluster_arn = ""
        self._parameter_group: str | None = None
        self._awsbackup: list[dict[str, Any]] = []
        self._manifests: dict[str, Manifest] = {}
        self._newest: list[str] | None = None
        self._stored: list[dict[str, Any]] | None = None
        self._last_report: datetime | None = None
        self._recorded: tuple[datetime | None, tuple[Document, ...]] | None = None

    def gather(self) -> dict[str, Any]:
        """The facts document. Never raises for what AWS says: that becomes an observation that failed."""
        with_vault = self._expected.vault is not None
        questions: list[tuple[str, str, Callable[[], Any], bool]] = [
            ("cluster", "rds:DescribeDBClusters", self._cluster, True),
            ("cluster-parameters", "rds:DescribeDBClusterParameters", self._parameters, True),
            ("snapshots", "rds:DescribeDBClusterSnapshots", self._snapshots, True),
            ("snapshot-sharing", "rds:DescribeDBClusterSnapshotAttributes", self._sharing, True),
            ("vault", "backup:DescribeBackupVault", self._vault, with_vault),
            ("vault-policy", "backup:GetBackupVaultAccessPolicy", self._vault_policy, with_vault),
            ("recovery-points", "backup:ListRecoveryPointsByBackupVault", self._recovery_points, with_vault),
            ("copies", "backup:ListRecoveryPointsByBackupVault", self._copies, bool(self._expected.copy_vaults)),
            ("plan", "backup:GetBackupPlan", self._plan, with_vault),
            ("selections", "backup:GetBackupSelection", self._selections, with_vault),
            ("region-settings", "backup:DescribeRegionSettings", self._region_settings, with_vault),
            ("backup-jobs", "backup:ListBackupJobs", self._backup_jobs, with_vault),
            ("bucket-encryption", "s3:GetEncryptionConfiguration", self._bucket_encryption, True),
            ("bucket-lifecycle", "s3:GetLifecycleConfiguration", self._bucket_lifecycle, True),
            ("bucket-versioning", "s3:GetBucketVersioning", self._bucket_versioning, True),
            ("bucket-lock", "s3:GetBucketObjectLockConfiguration", self._bucket_lock, True),
            ("bucket-public-access", "s3:GetBucketPublicAccessBlock", self._bucket_public_access, True),
            ("bucket-policy", "s3:GetBucketPolicy", self._bucket_policy, True),
            ("topic", "sns:GetTopicAttributes", self._topic, self._expected.topic_arn is not None),
            ("log-groups", "logs:DescribeLogGroups", self._log_groups, bool(self._expected.log_groups)),
            ("sets", "s3:ListBucket, s3:GetObject", self._sets, True),
            ("objects", "s3:GetObject", self._objects, True),
            (
                "read-back",
                "lambda:InvokeFunction, lambda:GetFunctionConfiguration",
                self._read_back,
                self._expected.read_back is not None,
            ),
            ("recovery-tests", "s3:GetObject", self._recovery_tests, True),
            ("workflows", "states:DescribeStateMachine", self._workflows, True),
            ("executions", "states:ListExecutions", self._executions, True),
            ("previous", "s3:GetObject", self._previous, True),
            ("recent-objects", "s3:ListBucket, s3:GetObject", self._recent_objects, True),
            ("documents", "s3:ListBucket, s3:GetObject", self._documents, True),
            ("legal-holds", "s3:GetObject", self._legal_holds, True),
            ("storage", "s3:GetObject", self._storage, True),
            # Last: the keys that the answers before this named.
            ("keys", "kms:DescribeKey", self._describe_keys, True),
            ("key-rotation", "kms:GetKeyRotationStatus", self._rotation, True),
            ("key-policy", "kms:GetKeyPolicy", self._key_policy, True),
            ("identities", "iam:GetAccountAuthorizationDetails", self._identities, True),
        ]
        asked = {name: self._ask(call, read) for name, call, read, needed in questions if needed}
        return {"schema": SCHEMA, "observations": asked}

    def _ask(self, call: str, read: Callable[[], Any]) -> dict[str, Any]:
        at = self._clock()
        try:
            return observed(call, at, read())
        except Exception as error:  # noqa: BLE001  whatever it is, this question has no answer
            _log.warning("%s: %s", call, cause(error))
            return unobserved(call, at, cause(error))

    # --- RDS ---------------------------------------------------------------------------------------------------------

    def _cluster(self) -> dict[str, Any]:
        found = self._rds.cluster(self._expected.cluster_id)
        if found is None:
            raise LookupError(f"there is no cluster {self._expected.cluster_id}")
        self._cluster_arn = str(found["DBClusterArn"])
        self._saw_key(found.get("KmsKeyId"))
        self._parameter_group = found.get("DBClusterParameterGroup")
        return {
            "identifier": found.get("DBClusterIdentifier"),
            "arn": found.get("DBClusterArn"),
            "resource_id": found.get("DbClusterResourceId"),
            "created": _iso(found.get("ClusterCreateTime")),
            "encrypted": found.get("StorageEncrypted"),
            "key": found.get("KmsKeyId"),
            "retention_days": found.get("BackupRetentionPeriod"),
            "deletion_protection": found.get("DeletionProtection"),
            "copy_tags": found.get("CopyTagsToSnapshot"),
            "earliest": _iso(found.get("EarliestRestorableTime")),
            "latest": _iso(found.get("LatestRestorableTime")),
        }

    def _parameters(self) -> dict[str, Any]:
        pages = self._clients["rds"].get_paginator("describe_db_cluster_parameters")
        for page in pages.paginate(DBClusterParameterGroupName=self._parameter_group):
            for parameter in page.get("Parameters", []):
                if parameter.get("ParameterName") == "rds.force_ssl":
                    return {"rds.force_ssl": parameter.get("ParameterValue")}
        return {"rds.force_ssl": None}

    def _snapshots(self) -> list[dict[str, Any]]:
        described = {kind: self._rds.snapshots(kind) for kind in ("manual", "automated", "awsbackup")}
        self._awsbackup = described["awsbackup"]
        return [self._snapshot(kind, s) for kind, group in described.items() for s in group if self._is_ours(s)]

    def _is_ours(self, snapshot: Mapping[str, Any]) -> bool:
        known = snapshot.get("DbClusterResourceId")
        same_name = snapshot.get("DBClusterIdentifier") == self._expected.cluster_id
        return known in self._expected.lineage or (known is None and same_name)

    def _snapshot(self, kind: str, snapshot: Mapping[str, Any]) -> dict[str, Any]:
        self._saw_key(snapshot.get("KmsKeyId"))
        return {
            "id": snapshot.get("DBClusterSnapshotIdentifier"),
            "arn": snapshot.get("DBClusterSnapshotArn"),
            "kind": kind,
            "status": snapshot.get("Status"),
            "encrypted": snapshot.get("StorageEncrypted"),
            "key": snapshot.get("KmsKeyId"),
        }

    def _sharing(self) -> list[dict[str, Any]]:
        found = []
        ours = [s for s in (*self._rds.snapshots("manual"), *self._awsbackup) if self._is_ours(s)]
        for snapshot in ours:
            name = snapshot["DBClusterSnapshotIdentifier"]
            answer = self._clients["rds"].describe_db_cluster_snapshot_attributes(DBClusterSnapshotIdentifier=name)
            attributes = answer["DBClusterSnapshotAttributesResult"].get("DBClusterSnapshotAttributes", [])
            shared = [v for a in attributes if a["AttributeName"] == "restore" for v in a.get("AttributeValues", [])]
            found.append({"id": name, "shared_with": shared})
        return found

    # --- AWS Backup --------------------------------------------------------------------------------------------------

    def _vault(self) -> dict[str, Any]:
        found = self._clients["backup"].describe_backup_vault(BackupVaultName=self._expected.vault)
        self._saw_key(found.get("EncryptionKeyArn"))
        return {
            "name": found.get("BackupVaultName"),
            "key": found.get("EncryptionKeyArn"),
            "locked": found.get("Locked", False),
            "min_days": found.get("MinRetentionDays"),
            "max_days": found.get("MaxRetentionDays"),
        }

    def _vault_policy(self) -> dict[str, Any]:
        ask = self._clients["backup"].get_backup_vault_access_policy
        answer = _or_nothing(lambda: ask(BackupVaultName=self._expected.vault)["Policy"])
        return {"document": json.loads(answer) if answer else None}

    def _in_vault(self, name: str) -> list[dict[str, Any]]:
        pages = self._clients["backup"].get_paginator("list_recovery_points_by_backup_vault")
        points = [p for page in pages.paginate(BackupVaultName=name) for p in page.get("RecoveryPoints", [])]
        return [p for p in points if self._is_our_point(p)]

    def _is_our_point(self, point: Mapping[str, Any]) -> bool:
        """RDS knows which cluster a snapshot is of; a name, and so an ARN, is reused, and changes with a recovery."""
        snapshot = next((s for s in self._awsbackup if s["DBClusterSnapshotArn"] == point["RecoveryPointArn"]), None)
        return point.get("ResourceArn") == self._cluster_arn if snapshot is None else self._is_ours(snapshot)

    def _recovery_points(self) -> list[dict[str, Any]]:
        if not self._cluster_arn:
            raise LookupError("the cluster was not described")
        listed = self._in_vault(str(self._expected.vault))
        tiers = {p.identifier: p.tier for p in aws_backup_points(listed, self._awsbackup, self._expected.policy)}
        found = []
        for point in listed:
            arn = str(point["RecoveryPointArn"])
            self._saw_key(point.get("EncryptionKeyArn"))
            tier = tiers.get(arn)
            found.append(
                {
                    "arn": arn,
                    "status": point.get("Status"),
                    "created": _iso(point.get("CreationDate")),
                    "encrypted": point.get("IsEncrypted"),
                    "key": point.get("EncryptionKeyArn"),
                    "delete_at": _iso((point.get("CalculatedLifecycle") or {}).get("DeleteAt")),
                    "tier": tier.value if tier else None,
                }
            )
        return found

    def _copies(self) -> list[dict[str, Any]]:
        points = [point for vault in self._expected.copy_vaults for point in self._in_vault(vault)]
        for point in points:
            self._saw_key(point.get("EncryptionKeyArn"))
        return [
            {"arn": p["RecoveryPointArn"], "encrypted": p.get("IsEncrypted"), "key": p.get("EncryptionKeyArn")}
            for p in points
        ]

    def _plan(self) -> dict[str, Any]:
        found = self._clients["backup"].get_backup_plan(BackupPlanId=self._expected.plan_id)
        return {
            "created": _iso(found.get("CreationDate")),
            "rules": [
                {
                    "name": rule.get("RuleName"),
                    "vault": rule.get("TargetBackupVaultName"),
                    "schedule": rule.get("ScheduleExpression"),
                    "delete_after_days": (rule.get("Lifecycle") or {}).get("DeleteAfterDays"),
                }
                for rule in found["BackupPlan"]["Rules"]
            ],
        }

    def _selections(self) -> list[dict[str, Any]]:
        backup, plan = self._clients["backup"], self._expected.plan_id
        pages = backup.get_paginator("list_backup_selections").paginate(BackupPlanId=plan)
        ids = [s["SelectionId"] for page in pages for s in page.get("BackupSelectionsList", [])]
        chosen = (backup.get_backup_selection(BackupPlanId=plan, SelectionId=one)["BackupSelection"] for one in ids)
        return [
            {
                "name": selection.get("SelectionName"),
                "resources": selection.get("Resources", []),
                "not_resources": selection.get("NotResources", []),
                "narrowed_by": _tag_conditions(selection),
            }
            for selection in chosen
        ]

    def _region_settings(self) -> dict[str, Any]:
        found = self._clients["backup"].describe_region_settings()
        return {"Aurora": found["ResourceTypeOptInPreference"].get("Aurora", False)}

    def _backup_jobs(self) -> list[dict[str, Any]]:
        pages = self._clients["backup"].get_paginator("list_backup_jobs")
        begin = self._clock() - WINDOW
        jobs = [
            job
            for page in pages.paginate(ByBackupVaultName=self._expected.vault, ByCreatedAfter=begin)
            for job in page.get("BackupJobs", [])
        ]
        return [
            {"id": job.get("BackupJobId"), "state": job.get("State"), "created": _iso(job.get("CreationDate"))}
            for job in jobs
            if job.get("ResourceArn") == self._cluster_arn
        ]

    # --- S3: the bucket ----------------------------------------------------------------------------------------------

    def _of_bucket(self, operation: str) -> Any:
        """What S3 says of the bucket; None when it says that there is no such thing."""
        return _or_nothing(lambda: getattr(self._bucket.client, operation)(Bucket=self._bucket.name))

    def _bucket_encryption(self) -> dict[str, Any]:
        found = self._of_bucket("get_bucket_encryption")
        if not found:
            return {"algorithm": "none", "key": None}
        rule = found["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]
        return {"algorithm": rule.get("SSEAlgorithm"), "key": rule.get("KMSMasterKeyID")}

    def _bucket_lifecycle(self) -> list[dict[str, Any]]:
        found = self._of_bucket("get_bucket_lifecycle_configuration") or {"Rules": []}
        return [
            {
                "status": rule.get("Status"),
                **_lifecycle_filter(rule),
                "expire_days": (rule.get("Expiration") or {}).get("Days"),
                "expire_date": _iso((rule.get("Expiration") or {}).get("Date")),
                "noncurrent_days": (rule.get("NoncurrentVersionExpiration") or {}).get("NoncurrentDays"),
                "transitions": [
                    {"days": t.get("Days"), "date": _iso(t.get("Date")), "storage_class": t.get("StorageClass")}
                    for t in rule.get("Transitions", [])
                ],
                "noncurrent_transitions": [
                    {"days": t.get("NoncurrentDays"), "storage_class": t.get("StorageClass")}
                    for t in rule.get("NoncurrentVersionTransitions", [])
                ],
            }
            for rule in found["Rules"]
        ]

    def _bucket_versioning(self) -> dict[str, Any]:
        return {"status": self._of_bucket("get_bucket_versioning").get("Status", "")}

    def _bucket_lock(self) -> dict[str, Any]:
        found = self._of_bucket("get_object_lock_configuration") or {}
        return {"enabled": found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"}

    def _bucket_public_access(self) -> dict[str, Any]:
        found = (self._of_bucket("get_public_access_block") or {}).get("PublicAccessBlockConfiguration", {})
        names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        keys = ("block_public_acls", "ignore_public_acls", "block_public_policy", "restrict_public_buckets")
        return {key: found.get(name, False) for key, name in zip(keys, names, strict=True)}

    def _bucket_policy(self) -> dict[str, Any]:
        found = self._of_bucket("get_bucket_policy")
        return {"document": json.loads(found["Policy"]) if found else None}

    # --- S3: what lies in the bucket ---------------------------------------------------------------------------------

    def _sets(self) -> list[dict[str, Any]]:
        keys = [
            key
            for prefix in Prefix
            for resource_id in self._expected.lineage
            for key in set_keys(self._bucket, f"{prefix.value}/{resource_id}/")
        ]
        with ThreadPoolExecutor(_READERS) as pool:
            found = list(pool.map(self._set, keys))
        newest: dict[tuple[str, str], dict[str, Any]] = {}
        for item in found:
            series = (item["prefix"], item["database"])
            if series not in newest or item["started"] > newest[series]["started"]:
                newest[series] = item
        for item in newest.values():
            item["newest"] = True
        self._newest = [item["set"] for item in newest.values()]
        return found

    def _set(self, key: str) -> dict[str, Any]:
        prefix, _, database, started = parse_set_key(key)
        manifest: dict[str, Any] = {"ok": True, "problem": None, "bytes": None, "seconds": None}
        try:
            self._manifests[key] = known = read_manifest(self._bucket, key)
            manifest |= {"bytes": known.size, "seconds": round(sum(a.seconds for a in known.archives), 3)}
        except ManifestError as error:
            manifest |= {"ok": False, "problem": str(error)}
        record = self._bucket.read_json(key + VERIFICATION_NAME)
        tiers = None
        if record is not None:
            tiers = {
                name: {"ok": tier["ok"], "detail": tier["detail"], "at": tier["at"]}
                for name, tier in record["tiers"].items()
            }
        return {
            "set": key,
            "prefix": prefix,
            "database": database,
            "started": started.isoformat(),
            "newest": False,
            "manifest": manifest,
            "verification": tiers,
        }

    def _objects(self) -> list[dict[str, Any]]:
        if self._newest is None:
            raise LookupError("the sets were not read")
        found = [item for key in self._newest for item in self._objects_of(key)]
        self._stored = [
            {"key": item["key"], "version": (item["recorded"] or {}).get("version")}
            for item in found
            if item["found"] is not None or item["problem"] is not None
        ]
        return found

    def _objects_of(self, key: str) -> Iterable[dict[str, Any]]:
        yield self._object(key + NAME, None)
        manifest = self._manifests.get(key)
        if manifest is not None:
            for archive in manifest.archives:
                recorded = {"bytes": archive.bytes, "crc32": archive.crc32, "version": archive.version_id}
                yield self._object(archive.key, recorded)
            return
        # What its archives should be is not known: they are looked at, and cannot be judged.
        for archive_key in self._bucket.keys(key):
            if archive_key.endswith(".dump"):
                yield self._object(archive_key, {"bytes": None, "crc32": None, "version": None})

    def _object(self, key: str, recorded: dict[str, Any] | None) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        client, name = self._bucket.client, self._bucket.name
        try:
            head = client.head_object(Bucket=name, Key=key, ChecksumMode="ENABLED")
        except ClientError as error:
            problem = None if _is_gone(error) else cause(error)
            return {"key": key, "recorded": recorded, "found": None, "problem": problem}
        found = {
            "bytes": head["ContentLength"],
            "crc32": head.get("ChecksumCRC32"),
            "version": head.get("VersionId"),
            "encryption": head.get("ServerSideEncryption"),
            "key": head.get("SSEKMSKeyId"),
        }
        return {"key": key, "recorded": recorded, "found": found, "problem": None}

    def _recent_objects(self) -> dict[str, Any]:
        """How everything is encrypted that was written of late, grouped; what is gone by then is left out."""
        since = recent_since(self._clock(), self._last_report)
        parts = (*(f"{prefix.value}/" for prefix in Prefix), REGISTERS)
        keys = sorted(key for part in parts for key in self._bucket.keys(part, since))
        with ThreadPoolExecutor(_READERS) as pool:
            heads = list(pool.map(self._encryption_of, keys))
        groups: dict[tuple[str | None, str | None], list[str]] = {}
        for key, head in zip(keys, heads, strict=True):
            if isinstance(head, tuple):
                groups.setdefault(head, []).append(key)
        return {
            "since": since.isoformat(),
            "groups": [
                {"encryption": how, "key": key, "objects": len(found), "some": found[:_EXAMPLES]}
                for (how, key), found in groups.items()
            ],
            "unread": [
                {"key": key, "problem": head} for key, head in zip(keys, heads, strict=True) if isinstance(head, str)
            ],
        }

    def _encryption_of(self, key: str) -> tuple[str | None, str | None] | str | None:
        """How the object is encrypted, and its key; None when it is gone; the problem, in words, when S3 refuses."""
        from botocore.exceptions import ClientError

        try:
            head = self._bucket.client.head_object(Bucket=self._bucket.name, Key=key)
        except ClientError as error:
            return None if _is_gone(error) else cause(error)
        return head.get("ServerSideEncryption"), head.get("SSEKMSKeyId")

    def _read_back(self) -> dict[str, Any]:
        """What the function that runs under the restoring role could read, and under which role each of the two runs.

        Where the roles differ, nothing was shown of the one that restores.
        """
        if self._stored is None:
            raise LookupError("the objects were not looked at")
        functions = self._clients["lambda"]
        reads, restores = (
            functions.get_function_configuration(FunctionName=name)["Role"]
            for name in (self._expected.read_back, self._expected.restore)
        )
        answer = functions.invoke(
            FunctionName=self._expected.read_back, Payload=json.dumps({"objects": self._stored}).encode()
        )
        said = json.loads(answer["Payload"].read())
        if answer.get("FunctionError"):
            raise BackupError(f"{self._expected.read_back} failed: {said.get('errorType')}: {said.get('errorMessage')}")
        return {"role": reads, "restores_under": restores, "objects": said["objects"]}

    def _recovery_tests(self) -> list[dict[str, Any]]:
        """The newest of this cluster; in a shared bucket another cluster's test proves nothing of ours."""
        keys = sorted(self._bucket.keys(_TEST_ROOT), key=lambda key: key.rpartition("/")[2], reverse=True)
        found: list[dict[str, Any]] = []
        for key in keys:
            if len(found) == _TESTS:
                break
            report = self._bucket.read_json(key)
            if not self._tested_ours(report):
                continue
            found.append(
                {
                    "finished": report["finished"],
                    "outcome": report["outcome"],
                    "tier": report["recovery_point"]["tier"],
                    "rto_seconds": report["rto_seconds"],
                    "rpo_seconds": report["rpo_seconds"],
                }
            )
        return found[::-1]

    def _tested_ours(self, report: Mapping[str, Any]) -> bool:
        known = report["source"]["resource_id"]
        return known in self._expected.lineage or (known is None and report["owner"] == self._expected.owner)

    def _previous(self) -> dict[str, Any]:
        """What the last report saw; nothing, when this is the first."""
        record = self._evidence.newest(KIND)
        if record is None:
            self._recorded = (None, ())
            return {"created": None, "points": [], "documents": []}
        self._last_report = record.created
        attached = next(a for a in record.attachments if a.name == "report.json")
        data = self._bucket.read(attached.key)
        if sha256(data) != attached.sha256:
            raise BackupError(f"{attached.key} was altered: its SHA-256 is not the recorded one")
        # A report that could not list them leaves all of them to the next one, held against what was named before it.
        naming = record if record.documents is not None else self._evidence.newest(KIND, naming=True)
        documents = (naming.documents if naming else None) or ()
        self._recorded = (None if record.documents is None else record.created - OVERLAP, documents)
        return {
            "created": record.created.isoformat(),
            "points": json.loads(data)["points"],
            "documents": [asdict(d) for d in documents],
        }

    def _documents(self) -> list[dict[str, Any]]:
        """What lies beside the chain and is new, and what the last report named of it, as it is now."""
        if self._recorded is None:
            raise LookupError("the report before was not read")
        since, before = self._recorded
        return [asdict(d) for d in self._evidence.documents(since, {d.key for d in before})]

    def _legal_holds(self) -> list[dict[str, Any]]:
        return [
            {"what": ", ".join(hold.points), "matter": hold.matter, "since": hold.since.isoformat(), "by": hold.who}
            for hold in self._holds.holds()
        ]

    def _storage(self) -> dict[str, Any]:
        """How large the cluster is and what its backups cost, as the last retention plan saw it; null: it did not."""
        pointer = self._bucket.read_json(f"{_PLAN_ROOT}{quote(self._expected.owner, safe='')}/latest.json")
        plan = self._bucket.read_json(pointer["plan"]) if pointer else None
        size = size_from_plan(plan)
        return {
            "bytes": None if size is None else round(size * 1e9),
            "costs": {"at": plan["now"], **plan["costs"]} if plan and plan.get("costs") else None,
        }

    # --- The rest ----------------------------------------------------------------------------------------------------

    def _topic(self) -> dict[str, Any]:
        found = self._clients["sns"].get_topic_attributes(TopicArn=self._expected.topic_arn)["Attributes"]
        self._saw_key(found.get("KmsMasterKeyId"))  # an id, an alias, or the ARN of either
        return {"key": found.get("KmsMasterKeyId")}

    def _log_groups(self) -> list[dict[str, Any]]:
        pages = self._clients["logs"].get_paginator("describe_log_groups")
        return [
            {"name": group["logGroupName"], "key": group.get("kmsKeyId")}
            for prefix in self._expected.log_groups
            for page in pages.paginate(logGroupNamePrefix=prefix)
            for group in page.get("logGroups", [])
        ]

    def _workflows(self) -> list[dict[str, Any]]:
        ask = self._clients["stepfunctions"].describe_state_machine
        return [
            {"name": name, "created": _iso(ask(stateMachineArn=arn).get("creationDate"))}
            for name, arn in sorted(self._expected.workflows.items())
        ]

    def _executions(self) -> list[dict[str, Any]]:
        pages = self._clients["stepfunctions"].get_paginator("list_executions")
        begin, found = self._clock() - WINDOW, []
        for name, arn in sorted(self._expected.workflows.items()):
            for page in pages.paginate(stateMachineArn=arn):  # the newest first
                recent = [run for run in page.get("executions", []) if run["startDate"] >= begin]
                found += [
                    {"workflow": name, "name": r["name"], "status": r["status"], "started": _iso(r["startDate"])}
                    for r in recent
                ]
                if len(recent) < len(page.get("executions", [])):
                    break
        return found

    def _saw_key(self, arn: Any) -> None:
        if isinstance(arn, str) and arn:
            self._keys.add(arn)

    def _describe_keys(self) -> list[dict[str, Any]]:
        return [self._key(arn) for arn in sorted(self._keys)]

    def _key(self, arn: str) -> dict[str, Any]:
        """One key by the name that an answer gave it; one that cannot be described hides no other."""
        from botocore.exceptions import ClientError

        found: dict[str, Any] = {"arn": arn, "manager": None, "state": None, "deletion_date": None, "problem": None}
        try:
            key = self._clients["kms"].describe_key(KeyId=arn)["KeyMetadata"]
        except ClientError as error:
            gone = error.response.get("Error", {}).get("Code") == "NotFoundException"
            return found | ({"state": MISSING} if gone else {"problem": cause(error)})
        return found | {
            "manager": key.get("KeyManager"),
            "state": key.get("KeyState"),
            "deletion_date": _iso(key.get("DeletionDate")),
        }

    def _rotation(self) -> dict[str, Any]:
        found = self._clients["kms"].get_key_rotation_status(KeyId=self._expected.key_arn)
        return {"enabled": found.get("KeyRotationEnabled")}

    def _key_policy(self) -> dict[str, Any]:
        found = self._clients["kms"].get_key_policy(KeyId=self._expected.key_arn, PolicyName="default")
        return {"document": json.loads(found["Policy"])}

    def _identities(self) -> dict[str, Any]:
        """Who may delete; the policies themselves stay where they are: they are nothing for a report."""
        pages = self._clients["iam"].get_paginator("get_account_authorization_details").paginate()
        return who_may(pages, self._expected.targets)


def _iso(value: object) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else None


def _lifecycle_filter(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The prefix, and what else an object must be before the rule is of it."""
    where = rule.get("Filter") or {}
    every = {**where, **(where.get("And") or {})}
    tags = [*([every["Tag"]] if "Tag" in every else []), *every.get("Tags", [])]
    sizes = ("ObjectSizeGreaterThan", "ObjectSizeLessThan")
    narrowed = [f"{tag.get('Key')}={tag.get('Value')}" for tag in tags]
    narrowed += [f"{name} {every[name]}" for name in sizes if name in every]
    return {"prefix": str(every.get("Prefix") or rule.get("Prefix") or ""), "narrowed_by": narrowed}


def _tag_conditions(selection: Mapping[str, Any]) -> list[str]:
    """Conditions on tags, in words: whether they leave out what `Resources` names, only the tags of the day say."""
    tags = [f"{tag.get('ConditionKey')}={tag.get('ConditionValue')}" for tag in selection.get("ListOfTags", [])]
    return tags + [
        f"{operator} {one.get('ConditionKey')} {one.get('ConditionValue')}"
        for operator, wanted in (selection.get("Conditions") or {}).items()
        for one in wanted
    ]


def _is_gone(error: ClientError) -> bool:
    """Whether S3 says that there is no such object."""
    status: int | None = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status == 404  # noqa: PLR2004


def _or_nothing(ask: Callable[[], Any]) -> Any:
    """The answer, or None when AWS says that there is no such thing. Every other error is an error."""
    from botocore.exceptions import ClientError

    try:
        return ask()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _NOTHING:
            return None
        raise
