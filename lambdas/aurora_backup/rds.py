"""The RDS edge: one method for each call this package makes, every page read, errors by name.

Answers are RDS's own (PascalCase) dictionaries. What does not exist is None, so that "it is gone" is an answer and not
an exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_backup.errors import BackupError, redact
from aurora_backup.tags import tag_list

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_THROTTLED = {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"}
_BUSY = {"InvalidDBClusterState", "InvalidDBInstanceState", "InvalidDBClusterSnapshotState"}
_UNAVAILABLE = {"InternalFailure", "InternalError", "ServiceUnavailable", "ServiceUnavailableException"}
_PAGE = 100


class RdsError(BackupError):
    """RDS refused a call; `.code` is its error code."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class RdsUnavailable(RdsError):  # noqa: N818  names say what happened, as in errors.py
    """RDS throttled the call or failed itself. Trying again later may help; the workflows do."""


class RdsBusy(RdsError):  # noqa: N818  names say what happened, as in errors.py
    """Another operation is under way on the resource. The same call may succeed later."""


def make_client() -> Any:
    """Make an RDS client that retries what is transient before it gives up."""
    import boto3
    from botocore.config import Config

    return boto3.client("rds", config=Config(retries={"mode": "standard", "max_attempts": 6}))


class Rds:
    """RDS of one account and Region."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            kind: type[RdsError] = RdsBusy if code.removesuffix("Fault") in _BUSY else RdsError
            if code in _THROTTLED | _UNAVAILABLE or status >= 500:  # noqa: PLR2004  a server's error
                kind = RdsUnavailable
            raise kind(redact(str(error)), code) from None
        except BotoCoreError as error:
            raise RdsUnavailable(f"{operation}: {redact(str(error))}") from None
        return answer

    def _all(self, operation: str, field: str, **parameters: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        marker: dict[str, str] = {}
        while True:
            page = self._call(operation, MaxRecords=_PAGE, **parameters, **marker)
            found += page.get(field, [])
            if not page.get("Marker"):
                return found
            marker = {"Marker": str(page["Marker"])}

    def _one(self, operation: str, field: str, absent: str, **parameters: Any) -> dict[str, Any] | None:
        try:
            found = self._call(operation, **parameters).get(field, [])
        except RdsError as error:
            if error.code.removesuffix("Fault") == absent:
                return None
            raise
        return found[0] if found else None

    def cluster(self, identifier: str) -> dict[str, Any] | None:
        """Describe one cluster."""
        return self._one("describe_db_clusters", "DBClusters", "DBClusterNotFound", DBClusterIdentifier=identifier)

    def clusters(self) -> list[dict[str, Any]]:
        """Describe every cluster."""
        return self._all("describe_db_clusters", "DBClusters")

    def instance(self, identifier: str) -> dict[str, Any] | None:
        """Describe one instance."""
        return self._one("describe_db_instances", "DBInstances", "DBInstanceNotFound", DBInstanceIdentifier=identifier)

    def instances(self, cluster: str | None = None) -> list[dict[str, Any]]:
        """Describe the instances of a cluster, or all."""
        filters = {"Filters": [{"Name": "db-cluster-id", "Values": [cluster]}]} if cluster else {}
        found = self._all("describe_db_instances", "DBInstances", **filters)
        return [i for i in found if cluster is None or i.get("DBClusterIdentifier") == cluster]

    def snapshot(self, identifier: str) -> dict[str, Any] | None:
        """Describe one cluster snapshot."""
        return self._one(
            "describe_db_cluster_snapshots",
            "DBClusterSnapshots",
            "DBClusterSnapshotNotFound",
            DBClusterSnapshotIdentifier=identifier,
        )

    def snapshots(self, kind: str) -> list[dict[str, Any]]:
        """Describe every cluster snapshot of one SnapshotType: manual, automated or awsbackup."""
        return self._all("describe_db_cluster_snapshots", "DBClusterSnapshots", SnapshotType=kind)

    def automated_backup(self, resource_id: str) -> dict[str, Any] | None:
        """Describe the automated backups kept for a cluster, also after it was deleted."""
        return self._one(
            "describe_db_cluster_automated_backups",
            "DBClusterAutomatedBackups",
            "DBClusterAutomatedBackupNotFound",
            DbClusterResourceId=resource_id,
        )

    def subnet_group(self, name: str) -> dict[str, Any] | None:
        """Describe one DB subnet group."""
        return self._one("describe_db_subnet_groups", "DBSubnetGroups", "DBSubnetGroupNotFound", DBSubnetGroupName=name)

    def quota_left(self) -> dict[str, int]:
        """How many more there may be, by RDS's name of the quota: DBClusters, DBInstances, ManualClusterSnapshots."""
        quotas = self._call("describe_account_attributes").get("AccountQuotas", [])
        return {str(q["AccountQuotaName"]): int(q["Max"]) - int(q["Used"]) for q in quotas}

    def create_snapshot(self, identifier: str, cluster: str, tags: Mapping[str, str]) -> None:
        """Start a manual cluster snapshot; one that exists already is fine, the caller looks at it."""
        self._make(
            "create_db_cluster_snapshot",
            "DBClusterSnapshotAlreadyExists",
            DBClusterSnapshotIdentifier=identifier,
            DBClusterIdentifier=cluster,
            Tags=tag_list(tags),
        )

    def restore(self, operation: str, parameters: Mapping[str, Any]) -> None:
        """Start restoring a cluster; one that exists already is fine, the caller looks at it."""
        self._make(operation, "DBClusterAlreadyExists", **parameters)

    def create_instance(self, parameters: Mapping[str, Any]) -> None:
        """Start making an instance; one that exists already is fine, the caller looks at it."""
        self._make("create_db_instance", "DBInstanceAlreadyExists", **parameters)

    def _make(self, operation: str, exists: str, **parameters: Any) -> None:
        try:
            self._call(operation, **parameters)
        except RdsError as error:
            if error.code.removesuffix("Fault") != exists:
                raise

    def modify_cluster(self, identifier: str, changes: Mapping[str, Any]) -> None:
        """Change settings now, not in the maintenance window."""
        self._call("modify_db_cluster", DBClusterIdentifier=identifier, ApplyImmediately=True, **changes)

    def add_tags(self, arn: str, tags: Mapping[str, str]) -> None:
        """Add tags, or change their values."""
        self._call("add_tags_to_resource", ResourceName=arn, Tags=tag_list(tags))

    def remove_tags(self, arn: str, keys: Sequence[str]) -> None:
        """Take tags away; those that are not there are fine."""
        self._call("remove_tags_from_resource", ResourceName=arn, TagKeys=list(keys))

    def delete_snapshot(self, identifier: str) -> None:
        """Delete a manual cluster snapshot. Only `sweep` calls this."""
        self._call("delete_db_cluster_snapshot", DBClusterSnapshotIdentifier=identifier)

    def delete_instance(self, identifier: str) -> None:
        """Start deleting an instance. Only `removal` calls this."""
        self._call("delete_db_instance", DBInstanceIdentifier=identifier, SkipFinalSnapshot=True)

    def delete_cluster(self, identifier: str) -> None:
        """Start deleting a cluster with its automated backups. Only `removal` calls this."""
        self._call(
            "delete_db_cluster",
            DBClusterIdentifier=identifier,
            SkipFinalSnapshot=True,
            DeleteAutomatedBackups=True,
        )
