"""New clusters from backups. A restored cluster has no instance, and takes no connection before it gets one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from local.protocol import AwsError
from local.rds import rules
from local.rds.clusters import ENGINE, add_cluster, view
from local.rds.engine import Engine
from local.rds.keys import check_usable
from local.rds.notices import notify
from local.rds.state import Cluster, here, resource_id
from local.runtime import in_background

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

log = logging.getLogger("local.rds")


def restore_snapshot(request: dict[str, Any]) -> dict[str, Any]:
    """RestoreDBClusterFromSnapshot: the new server is a copy of the snapshot's own bytes."""
    source = here().snapshot(request["SnapshotIdentifier"])
    if source.record["Status"] != "available":
        raise AwsError("InvalidDBClusterSnapshotStateFault", f"The snapshot is in state {source.record['Status']}.")
    if request.get("Engine") != ENGINE:
        raise AwsError("InvalidParameterCombination", f"Engine must be {ENGINE}, received {request.get('Engine')}")
    engine = Engine(resource_id("cluster"), source.master, source.password, source.database)
    return _restore(request, engine, source.record, lambda: engine.adopt(source.data))


def restore_to_point_in_time(request: dict[str, Any]) -> dict[str, Any]:
    """RestoreDBClusterToPointInTime: base backup, archived WAL, and a target that PostgreSQL recovers to."""
    source = _source(request)
    moment: dt.datetime | None = request.get("RestoreToTime")
    latest = request.get("UseLatestRestorableTime", False)
    if request.get("RestoreType", "full-copy") == "copy-on-write":
        if moment:
            raise AwsError("InvalidParameterCombination", "RestoreToTime cannot be specified with copy-on-write")
    elif (moment is not None) == latest:
        raise AwsError(
            "InvalidParameterCombination",
            "Exactly one of RestoreToTime and UseLatestRestorableTime must be specified",
        )
    if source.engine.running and source.engine.server.data.exists():
        source.engine.server.archive_now()
    first, last = source.engine.earliest(), source.engine.latest()
    if first is None or last is None:
        raise AwsError("PointInTimeRestoreNotEnabledFault", "The source cluster has no automated backup yet.")
    if moment and not first <= moment <= last:
        raise AwsError(
            "InvalidParameterValue",
            f"The specified RestoreToTime {moment.isoformat()} is not within the restorable window: "
            f"{first.isoformat()} to {last.isoformat()}",
        )
    engine = Engine(resource_id("cluster"), source.engine.master, source.engine.password, source.engine.database)
    return _restore(request, engine, source.record, lambda: engine.recover(source.engine.automated, moment))


def _source(request: dict[str, Any]) -> Cluster:
    """The cluster that is recovered: by name while it lives, by resource id also when its automated backups remain."""
    region = here()
    by_name, by_id = request.get("SourceDBClusterIdentifier"), request.get("SourceDbClusterResourceId")
    if bool(by_name) == bool(by_id):
        raise AwsError(
            "InvalidParameterCombination",
            "Exactly one of SourceDBClusterIdentifier and SourceDbClusterResourceId must be specified",
        )
    if by_name:
        return region.cluster(by_name)
    for cluster in region.clusters.values():
        if cluster.resource_id == by_id:
            return cluster
    if by_id not in region.retained:
        raise AwsError("DBClusterAutomatedBackupNotFoundFault", f"No automated backup of {by_id} was found.")
    return region.retained[str(by_id)].cluster


def _restore(
    request: dict[str, Any],
    engine: Engine,
    source: dict[str, Any],
    work: Callable[[], None],
) -> dict[str, Any]:
    """Record the new cluster and fill it with `work`.

    It takes encryption, version and database from the source; security groups, parameter group, retention, deletion
    protection and tags only from the request, as RDS does.
    """
    name = rules.check_identifier(request["DBClusterIdentifier"], "DBClusterIdentifier")
    check_usable(source.get("KmsKeyId"))
    carried = {"EngineVersion": source["EngineVersion"], "StorageEncrypted": source.get("StorageEncrypted", False)}
    if request.get("KmsKeyId"):
        carried["StorageEncrypted"] = True
    elif source.get("KmsKeyId") and not str(source["KmsKeyId"]).endswith("/aws-rds"):
        carried["KmsKeyId"] = source["KmsKeyId"]
    cluster = add_cluster(name, {**carried, **request}, engine)
    if source.get("IAMDatabaseAuthenticationEnabled") and "EnableIAMDatabaseAuthentication" not in request:
        cluster.record["IAMDatabaseAuthenticationEnabled"] = True
        engine.set_iam(enabled=True)

    def done(problem: Exception | None) -> None:
        if problem:
            log.error("restoring %s failed: %s", name, problem)
            cluster.record["Status"] = "failed"
            notify("CLUSTER", cluster.record["DBClusterArn"], "failure", "DB cluster restore failed")
            return
        cluster.record["Status"] = "available"
        notify("CLUSTER", cluster.record["DBClusterArn"], "creation", "DB cluster restored")

    in_background(work, done)
    return {"DBCluster": view(cluster)}
