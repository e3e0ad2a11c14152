"""Recovery: everything that gets data back, and that proves it can be got back. Composition only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_cdk import Stack
from constructs import Construct

from aurora_backup.errors import SettingsError
from aurora_backup.recovery_settings import Validation
from cdk_aurora_backup.baselines import Baselines
from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.heartbeat import Heartbeat
from cdk_aurora_backup.janitor import Janitor
from cdk_aurora_backup.native_restore_test import NativeRestoreTest
from cdk_aurora_backup.on_demand_snapshot import OnDemandSnapshot
from cdk_aurora_backup.point_in_time_recovery import PointInTimeRecovery
from cdk_aurora_backup.recovery_test import RecoveryTest, TestIsolation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.functions import BackupFunctions, DatabaseNetwork
    from cdk_aurora_backup.restore_testing import RestoreTesting


class Recovery(Construct):
    """Baselines, heartbeat, snapshots on demand, point-in-time recovery, recovery tests and their janitor.

    databases: names. Default: all but `rdsadmin` and templates, found at run time.
    heartbeat: Default: True for a cluster of the same app; an imported one's must be asked for, and its endpoint known.
    heartbeat_database: Default: "postgres".
    validation: tolerances, recency queries and checks of one's own; docs/recovery.md has the shape. Default: none.
    lineage: resource ids of the clusters that this one was recovered from (`aurora-backup adopt` prints them).
    test_instance_class: of a test copy's one instance. Default: db.t4g.medium.
    restore_testing: AWS Backup's own restore tests, to be validated here. Default: none.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: BackupFunctions,
        network: DatabaseNetwork,
        alerts: BackupAlerts,
        databases: Sequence[str] = (),
        heartbeat: bool | None = None,
        heartbeat_database: str = "postgres",
        validation: Mapping[str, Any] | None = None,
        lineage: Sequence[str] = (),
        test_instance_class: str = "db.t4g.medium",
        restore_testing: RestoreTesting | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        told: dict[str, str] = {}
        if validation:
            try:
                Validation.read(validation)
            except SettingsError as error:
                raise SynthError(f"Recovery.{error}") from None
            told["VALIDATION"] = Stack.of(self).to_json_string(dict(validation))
        if lineage:
            told["LINEAGE"] = Stack.of(self).to_json_string(list(lineage))
        self.heartbeat = (
            Heartbeat(
                self,
                "Heartbeat",
                functions=functions,
                network=network,
                alerts=alerts,
                database=heartbeat_database,
            )
            if (functions.target.is_of_this_app if heartbeat is None else heartbeat)
            else None
        )
        self.baselines = Baselines(
            self,
            "Baselines",
            functions=functions,
            network=network,
            alerts=alerts,
            databases=databases,
            environment=told,
        )
        self.on_demand_snapshot = OnDemandSnapshot(
            self, "OnDemandSnapshot", functions=functions, alerts=alerts, baselines=self.baselines
        )
        self.point_in_time_recovery = PointInTimeRecovery(
            self, "PointInTimeRecovery", functions=functions, network=network, alerts=alerts, environment=told
        )
        self.isolation = TestIsolation(
            self, "Isolation", functions=functions, network=network, instance_class=test_instance_class
        )
        self.recovery_test = RecoveryTest(
            self,
            "RecoveryTest",
            functions=functions,
            alerts=alerts,
            baselines=self.baselines,
            isolation=self.isolation,
            databases=databases,
            environment=told,
        )
        self.native_restore_test = (
            NativeRestoreTest(
                self,
                "NativeRestoreTest",
                functions=functions,
                alerts=alerts,
                baselines=self.baselines,
                isolation=self.isolation,
                restore_testing=restore_testing,
                databases=databases,
                environment=told,
            )
            if restore_testing
            else None
        )
        self.janitor = Janitor(self, "Janitor", functions=functions, alerts=alerts, environment=told)
