"""A small AWS in memory, with one clock, for driving the recovery workflows in-process: RDS, S3, AWS Backup, SNS.

RDS is slow, as it is: things are `creating` and `deleting` for minutes of the world's clock, which only the Wait states
and retries of a state machine move. Every call can be made to fail, before or after it had its effect.
"""

# ruff: noqa: N803  parameters have AWS's own names

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any
from unittest import mock

import boto3
from botocore.exceptions import ClientError
from ministack.services import stepfunctions

from aurora_backup import s3
from aurora_backup.baseline import Database, Facts, Heartbeat, Integrity, Table
from aurora_backup.handlers import read_restored, take_baseline
from tests import recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PROD, PROD_ID = "prod", "cluster-PROD"
START = datetime(2026, 11, 2, 7, 0, tzinfo=UTC)
ACCOUNT = "111122223333"
_SLOW = timedelta(seconds=50)  # two rounds of waiting


class Killed(BaseException):
    """The execution was aborted from outside: no state of it runs any more."""


@dataclass
class Call:
    """One call to an AWS API, in order."""

    number: int
    service: str
    operation: str
    parameters: dict[str, Any]
    state: str


@dataclass
class Clock:
    now: datetime = START

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def iso(self) -> str:
        return self.now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def refused(code: str, message: str, operation: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation
    )


@dataclass
class Thing:
    """A cluster, an instance or a snapshot, with the time at which its status changes next."""

    described: dict[str, Any]
    status: str
    until: datetime | None = None


@dataclass
class World:
    """fault: called around each call's effect with (call, "before" | "after"); what it raises is the answer."""

    clock: Clock = field(default_factory=Clock)
    fault: Callable[[Call, str], None] = lambda _call, _when: None
    stuck: set[str] = field(default_factory=set)
    calls: list[Call] = field(default_factory=list)
    clusters: dict[str, Thing] = field(default_factory=dict)
    instances: dict[str, Thing] = field(default_factory=dict)
    snapshots: dict[str, Thing] = field(default_factory=dict)
    retained: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    published: list[dict[str, Any]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    restore_jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    quotas: dict[str, int] = field(default_factory=lambda: {"DBClusters": 40, "DBInstances": 40})
    damaged: bool = False
    state: str = ""  # the state of the workflow that is running

    def __post_init__(self) -> None:
        self._add_cluster(
            PROD,
            {
                "DbClusterResourceId": PROD_ID,
                "DBSubnetGroup": "data",
                "DBClusterParameterGroup": "tuned",
                "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-prod", "Status": "active"}],
                "BackupRetentionPeriod": 35,
                "DeletionProtection": True,
                "IAMDatabaseAuthenticationEnabled": True,
                "EnabledCloudwatchLogsExports": ["postgresql"],
                "MasterUserSecret": {"SecretArn": "arn:secret:prod", "KmsKeyId": "key"},
                "PreferredBackupWindow": "03:00-04:00",
                "TagList": [{"Key": "team", "Value": "clinic"}],
            },
            ready=True,
        )
        for number in (1, 2):
            self._add_instance(f"{PROD}-{number}", PROD, {"PromotionTier": number, "TagList": []}, ready=True)

    # What tests look at.

    def named(self, operation: str) -> list[Call]:
        return [call for call in self.calls if call.operation == operation]

    def production(self) -> dict[str, Any]:
        """Everything about production that must never change."""
        mine = {
            name: i.described for name, i in self.instances.items() if i.described.get("DBClusterIdentifier") == PROD
        }
        cluster = self.clusters[PROD].described
        return json.loads(json.dumps([cluster, mine, self.clusters[PROD].status], default=str))

    def test_copies(self) -> list[str]:
        things = {**self.clusters, **self.instances}
        return sorted(
            name
            for name, thing in things.items()
            if {"Key": "aurora-backup:purpose", "Value": "recovery-test"} in thing.described["TagList"]
        )

    # The clients.

    def client(self, service: str, **_: Any) -> Any:
        world = self

        class Client:
            def __getattr__(self, operation: str) -> Callable[..., Any]:
                return lambda **parameters: world.call(service, operation, parameters)

            def get_paginator(self, operation: str) -> Any:
                class Paginator:
                    def paginate(self, **parameters: Any) -> Iterator[Any]:
                        yield world.call(service, operation, parameters)

                return Paginator()

        return Client()

    def call(self, service: str, operation: str, parameters: dict[str, Any]) -> Any:
        call = Call(len(self.calls), service, operation, parameters, self.state)
        self.calls.append(call)
        recording.note(service, operation, parameters)
        self.settle()
        self.fault(call, "before")
        answer = getattr(self, f"_{service}_{operation}")(**parameters)
        self.fault(call, "after")
        return answer

    def settle(self) -> None:
        """Let everything that is slow come as far as the clock is."""
        for things in (self.instances, self.clusters, self.snapshots):
            for name, thing in list(things.items()):
                if name in self.stuck and thing.status == "creating":
                    continue
                if thing.until and self.clock.now >= thing.until:
                    thing.until = None
                    if thing.status == "deleting":
                        del things[name]
                    else:
                        thing.status = "available"

    @contextlib.contextmanager
    def inhabited(self) -> Iterator[None]:
        """Let the handlers see this world: its clients, its clock, and facts where they would ask PostgreSQL."""
        session = mock.MagicMock()
        replaced: list[tuple[Any, str, Any]] = [
            (boto3, "client", self.client),
            (s3, "_create", self.client),
            (read_restored, "Session", session),
            (take_baseline, "Session", session),
            (read_restored, "discover", lambda _: ["app"]),
            (take_baseline, "discover", lambda _: ["app"]),
            (read_restored, "read_facts", lambda *_: self.facts(restored=True)),
            (take_baseline, "read_facts", lambda *_: self.facts(restored=False)),
            (read_restored, "utc_now", lambda: self.clock.now),
        ]
        with contextlib.ExitStack() as stack:
            for module, name, value in replaced:
                stack.enter_context(mock.patch.object(module, name, value))
            yield

    # RDS.

    def _add_cluster(self, name: str, described: dict[str, Any], *, ready: bool = False) -> None:
        self.clusters[name] = Thing(
            {
                "DBClusterIdentifier": name,
                "DbClusterResourceId": f"cluster-OF-{name}",
                "ClusterCreateTime": START - timedelta(days=90) if ready else self.clock.now,
                "Endpoint": f"{name}.example",
                "ReaderEndpoint": f"{name}-ro.example",
                "Port": 5432,
                "TagList": [],
                "EngineVersion": "17.5",
                "DeletionProtection": False,
                **described,
            },
            "available" if ready else "creating",
            None if ready else self.clock.now + _SLOW,
        )

    def _add_instance(self, name: str, cluster: str, described: dict[str, Any], *, ready: bool = False) -> None:
        self.instances[name] = Thing(
            {
                "DBInstanceIdentifier": name,
                "DBClusterIdentifier": cluster,
                "DBInstanceClass": "db.r8g.large",
                "InstanceCreateTime": START - timedelta(days=90) if ready else self.clock.now,
                "Endpoint": {"Address": f"{name}.example", "Port": 5432},
                **described,
            },
            "available" if ready else "creating",
            None if ready else self.clock.now + _SLOW,
        )

    def add_snapshot(
        self, name: str, *, kind: str = "manual", age: timedelta = timedelta(hours=1), **other: Any
    ) -> None:
        arn = f"arn:aws:rds:eu-west-1:{ACCOUNT}:cluster-snapshot:{name}"
        described = {
            "DBClusterSnapshotIdentifier": name,
            "DBClusterSnapshotArn": arn,
            "SnapshotType": kind,
            "SnapshotCreateTime": self.clock.now - age,
            "DbClusterResourceId": PROD_ID,
            "TagList": [],
            "StorageEncrypted": True,
            **other,
        }
        self.snapshots[name] = Thing(described, "available")

    def _rds_describe_db_clusters(self, DBClusterIdentifier: str | None = None, **_: Any) -> Any:
        if DBClusterIdentifier and DBClusterIdentifier not in self.clusters:
            raise refused("DBClusterNotFoundFault", "no such cluster", "DescribeDBClusters")
        names = [DBClusterIdentifier] if DBClusterIdentifier else list(self.clusters)
        window = {
            "EarliestRestorableTime": self.clock.now - timedelta(days=35),
            "LatestRestorableTime": self.clock.now - timedelta(minutes=5),
        }
        return {"DBClusters": [self._view(self.clusters[n], "Status", **window) for n in names]}

    def _view(self, thing: Thing, status: str, **more: Any) -> dict[str, Any]:
        described = {**thing.described, status: thing.status, **more}
        if "DBClusterArn" not in described and status == "Status":
            members = [
                n
                for n, i in self.instances.items()
                if i.described.get("DBClusterIdentifier") == described.get("DBClusterIdentifier")
            ]
            described["DBClusterMembers"] = [
                {"DBInstanceIdentifier": n, "IsClusterWriter": n == members[0]} for n in members
            ]
        return copy.deepcopy(described)

    def _rds_describe_db_instances(self, DBInstanceIdentifier: str | None = None, Filters: Any = None, **_: Any) -> Any:
        if DBInstanceIdentifier and DBInstanceIdentifier not in self.instances:
            raise refused("DBInstanceNotFound", "no such instance", "DescribeDBInstances")
        wanted = Filters[0]["Values"] if Filters else None
        return {
            "DBInstances": [
                self._view(i, "DBInstanceStatus")
                for n, i in self.instances.items()
                if DBInstanceIdentifier in {None, n}
                and (not wanted or i.described.get("DBClusterIdentifier") in wanted)
            ]
        }

    def _rds_describe_db_cluster_snapshots(
        self, DBClusterSnapshotIdentifier: str | None = None, SnapshotType: str | None = None, **_: Any
    ) -> Any:
        found = [
            self._view(s, "Status", PercentProgress=100 if s.status == "available" else 40)
            for s in self.snapshots.values()
            if DBClusterSnapshotIdentifier
            in {None, s.described["DBClusterSnapshotIdentifier"], s.described["DBClusterSnapshotArn"]}
            and SnapshotType in {None, s.described["SnapshotType"]}
        ]
        if DBClusterSnapshotIdentifier and not found:
            raise refused("DBClusterSnapshotNotFoundFault", "no such snapshot", "DescribeDBClusterSnapshots")
        return {"DBClusterSnapshots": found}

    def _rds_describe_db_cluster_automated_backups(self, DbClusterResourceId: str, **_: Any) -> Any:
        if DbClusterResourceId not in self.retained:
            raise refused("DBClusterAutomatedBackupNotFoundFault", "none", "DescribeDBClusterAutomatedBackups")
        return {"DBClusterAutomatedBackups": [self.retained[DbClusterResourceId]]}

    def _rds_describe_db_subnet_groups(self, DBSubnetGroupName: str, **_: Any) -> Any:
        if DBSubnetGroupName != "data":
            raise refused("DBSubnetGroupNotFoundFault", "no such subnet group", "DescribeDBSubnetGroups")
        return {"DBSubnetGroups": [{"DBSubnetGroupName": "data"}]}

    def _rds_describe_account_attributes(self) -> Any:
        return {"AccountQuotas": [{"AccountQuotaName": n, "Max": m, "Used": 0} for n, m in self.quotas.items()]}

    def _rds_create_db_cluster_snapshot(
        self, DBClusterSnapshotIdentifier: str, DBClusterIdentifier: str, Tags: Any
    ) -> Any:
        name = DBClusterSnapshotIdentifier
        if name in self.snapshots:
            raise refused("DBClusterSnapshotAlreadyExistsFault", "exists", "CreateDBClusterSnapshot")
        assert DBClusterIdentifier == PROD
        self.add_snapshot(name, age=timedelta(0), TagList=Tags)
        self.snapshots[name].status, self.snapshots[name].until = "creating", self.clock.now + _SLOW

    def _rds_restore_db_cluster_to_point_in_time(self, **p: Any) -> Any:
        source = p.get("SourceDBClusterIdentifier")
        assert source == PROD or p.get("SourceDbClusterResourceId") in self.retained
        self._restore(p)

    def _rds_restore_db_cluster_from_snapshot(self, **p: Any) -> Any:
        arns = {s.described["DBClusterSnapshotArn"] for s in self.snapshots.values()}
        assert p["SnapshotIdentifier"] in {*self.snapshots, *arns}
        self._restore(p)

    def _restore(self, p: Mapping[str, Any]) -> None:
        name = p["DBClusterIdentifier"]
        if name in self.clusters:
            raise refused("DBClusterAlreadyExistsFault", "exists", "RestoreDBCluster")
        assert any(tag["Key"] == "aurora-backup:execution" for tag in p["Tags"]), "restored without our tags"
        self._require_record("cluster", name)
        self._add_cluster(
            name,
            {
                "TagList": p["Tags"],
                "DBSubnetGroup": p.get("DBSubnetGroupName", "default"),
                "DBClusterParameterGroup": p.get("DBClusterParameterGroupName", "default.aurora-postgresql17"),
                "VpcSecurityGroups": [{"VpcSecurityGroupId": g} for g in p.get("VpcSecurityGroupIds", ["sg-default"])],
                "DeletionProtection": p.get("DeletionProtection", False),
                "IAMDatabaseAuthenticationEnabled": p.get("EnableIAMDatabaseAuthentication", False),
                "EnabledCloudwatchLogsExports": p.get("EnableCloudwatchLogsExports", []),
                "BackupRetentionPeriod": 1,
            },
        )

    def _require_record(self, kind: str, name: str) -> None:
        keys = [key for key in self.objects if key.startswith(f"ledger/{kind}/") and key.endswith(f"/{name}.json")]
        assert keys, f"{kind} {name} is made without a creation record"

    def _rds_modify_db_cluster(self, DBClusterIdentifier: str, **changes: Any) -> Any:
        assert DBClusterIdentifier != PROD, "production was modified"
        thing = self._available(self.clusters, DBClusterIdentifier, "InvalidDBClusterStateFault")
        changes.pop("ApplyImmediately")
        if changes.pop("ManageMasterUserPassword", False):
            instances = [
                i for i in self.instances.values() if i.described.get("DBClusterIdentifier") == DBClusterIdentifier
            ]
            assert instances, "a password cannot be set in a cluster without an instance"
            thing.described["MasterUserSecret"] = {"SecretArn": f"arn:secret:{DBClusterIdentifier}"}
        changes.pop("MasterUserSecretKmsKeyId", None)
        thing.described.update(changes)

    def _available(self, things: dict[str, Thing], name: str, code: str) -> Thing:
        if things[name].status != "available":
            raise refused(code, f"{name} is {things[name].status}", "Modify")
        return things[name]

    def _rds_create_db_instance(self, **p: Any) -> Any:
        name, cluster = p["DBInstanceIdentifier"], p["DBClusterIdentifier"]
        assert cluster != PROD, "production was given an instance"
        if name in self.instances:
            raise refused("DBInstanceAlreadyExists", "exists", "CreateDBInstance")
        self._require_record("instance", name)
        self._available(self.clusters, cluster, "InvalidDBClusterStateFault")
        self._add_instance(name, cluster, {"TagList": p["Tags"], "DBInstanceClass": p["DBInstanceClass"]})

    def _rds_delete_db_instance(self, DBInstanceIdentifier: str, SkipFinalSnapshot: bool) -> Any:
        thing = self.instances[DBInstanceIdentifier]
        assert thing.described["DBClusterIdentifier"] != PROD, "production lost an instance"
        assert SkipFinalSnapshot
        if thing.status == "deleting":
            raise refused("InvalidDBInstanceState", "already deleting", "DeleteDBInstance")
        thing.status, thing.until = "deleting", self.clock.now + _SLOW

    def _rds_delete_db_cluster(self, DBClusterIdentifier: str, **_: Any) -> Any:
        assert DBClusterIdentifier != PROD, "production was deleted"
        thing = self.clusters[DBClusterIdentifier]
        if thing.described["DeletionProtection"]:
            raise refused("InvalidParameterCombination", "protected", "DeleteDBCluster")
        alive = [i for i in self.instances.values() if i.described.get("DBClusterIdentifier") == DBClusterIdentifier]
        if any(i.status != "deleting" for i in alive) or thing.status != "available":
            raise refused("InvalidDBClusterStateFault", "not now", "DeleteDBCluster")
        thing.status, thing.until = "deleting", self.clock.now + _SLOW

    # S3.

    def _s3_put_object(self, Key: str, Body: bytes, IfNoneMatch: str | None = None, **_: Any) -> Any:
        if IfNoneMatch and Key in self.objects:
            raise refused("PreconditionFailed", "there", "PutObject", 412)
        self.objects[Key] = Body
        return {}

    def _s3_get_object(self, Key: str, **_: Any) -> Any:
        if Key not in self.objects:
            raise refused("NoSuchKey", "not there", "GetObject", 404)
        return {"Body": io.BytesIO(self.objects[Key]), "ContentLength": len(self.objects[Key])}

    def _s3_head_object(self, Key: str, **_: Any) -> Any:
        if Key not in self.objects:
            raise refused("404", "not there", "HeadObject", 404)
        return {"ContentLength": len(self.objects[Key]), "ETag": '"e"'}

    def _s3_delete_object(self, Key: str, **_: Any) -> Any:
        self.objects.pop(Key, None)
        return {}

    def _s3_list_objects_v2(self, Prefix: str, **_: Any) -> Any:
        return {"Contents": [{"Key": key} for key in sorted(self.objects) if key.startswith(Prefix)]}

    # The others.

    def _secretsmanager_get_secret_value(self, SecretId: str) -> Any:
        return {"SecretString": json.dumps({"username": "master", "password": SecretId})}

    def _backup_describe_restore_job(self, RestoreJobId: str) -> Any:
        return self.restore_jobs[RestoreJobId]

    def _backup_put_restore_validation_result(self, **p: Any) -> Any:
        self.validations.append(p)

    def _sns_publish(self, **p: Any) -> Any:
        self.published.append(p)
        return {"MessageId": "1"}

    # PostgreSQL, as far as the handlers see it.

    def facts(self, *, restored: bool) -> Facts:
        heartbeat = Heartbeat(first=1, last=100, count=100, last_at=self.clock.now - timedelta(minutes=6))
        if restored:
            moment = self._restored_moment()
            heartbeat = Heartbeat(first=1, last=100, count=100, last_at=moment - timedelta(minutes=2))
        rows = 900 if restored and self.damaged else 1000
        database = Database(
            tables={"public.patients": Table(rows=rows)},
            constraints=("public.patients: patients_pkey PRIMARY KEY (id)",),
            permissions=("owner of table public.patients is master",),
            heartbeat=heartbeat,
            integrity=Integrity(checked=2) if restored else None,
        )
        return Facts(
            taken=self.clock.now,
            finished=self.clock.now,
            server=170005,
            roles=("role app",),
            databases={"app": database},
        )

    def _restored_moment(self) -> datetime:
        plans = [json.loads(body) for key, body in self.objects.items() if key.endswith("/plan.json")]
        return datetime.fromisoformat(plans[-1]["point"]["moment"])


class _Context:
    @staticmethod
    def get_remaining_time_in_millis() -> int:
        return 900_000


@dataclass
class Machine:
    """One synthesised definition, and the environment of the functions that it calls.

    functions: the ARN written in a task -> (handler module, environment). pace: how much longer every wait is.
    on_state: called around every task with (state's name, attempt number, "before" | "after"); what it raises is the
    task's end.
    """

    name: str
    definition: dict[str, Any]
    functions: dict[str, tuple[str, dict[str, str]]]
    pace: float = 1.0
    on_state: Callable[[str, int, str], None] = lambda _name, _attempt, _when: None

    def run(self, world: World, payload: Mapping[str, Any], execution: str = "run-1") -> dict[str, Any]:
        """Run to the end; return MiniStack's record: `status`, `output`, `error`, `cause`, `events`."""
        attempts: dict[str, int] = {}
        machine_arn = f"arn:aws:states:eu-west-1:{ACCOUNT}:stateMachine:{self.name}"
        arn = f"arn:aws:states:eu-west-1:{ACCOUNT}:execution:{self.name}:{execution}"
        record: dict[str, Any] = {
            "executionArn": arn,
            "stateMachineArn": machine_arn,
            "name": execution,
            "status": "RUNNING",
            "startDate": world.clock.iso(),
            "input": json.dumps(payload),
            "events": [],
        }

        def invoke(resource: str, task_input: Any, _timeout: float | None = None) -> Any:
            entered = [e for e in record["events"] if e["type"] == "TaskStateEntered"]
            name = entered[-1]["stateEnteredEventDetails"]["name"]
            attempts[name] = attempts.get(name, 0) + 1
            world.state = name
            self.on_state(name, attempts[name], "before")
            answer = self._task(world, resource, task_input)
            self.on_state(name, attempts[name], "after")
            return json.loads(json.dumps(answer))

        with contextlib.ExitStack() as stack:
            stack.enter_context(world.inhabited())
            for attribute, value in {
                "_invoke_resource": invoke,
                "_invoke_resource_with_timeout": invoke,
                "_scaled_sleep": lambda seconds: world.clock.advance(seconds * self.pace),
                "now_iso": world.clock.iso,
                "time": mock.Mock(sleep=lambda _seconds: None),
                "_emit_execution_status_event": lambda _execution: None,
                "_executions": {arn: record},
                "_state_machines": {machine_arn: {"name": self.name, "definition": json.dumps(self.definition)}},
            }.items():
                stack.enter_context(mock.patch.object(stepfunctions, attribute, value))
            with contextlib.suppress(Killed):
                stepfunctions._run_execution(arn)
        if record["status"] == "RUNNING":
            record["status"] = "ABORTED"
        return record

    def _task(self, world: World, resource: str, task_input: Any) -> Any:
        try:
            if resource.endswith(":sns:publish"):
                return world.client("sns").publish(**task_input)
            handler, environment = self.functions[resource]
            return _invoke(handler, environment, task_input)
        except Exception as error:
            cause = json.dumps({"errorMessage": str(error), "errorType": type(error).__name__})
            raise stepfunctions._ExecutionError(type(error).__name__, cause) from error


def invoke_handler(world: World, handler: str, environment: Mapping[str, str], event: Any) -> Any:
    """Call a handler as Lambda would: JSON in, JSON out, its own environment, clients of this world."""
    with world.inhabited():
        return _invoke(handler, environment, event)


def _invoke(handler: str, environment: Mapping[str, str], event: Any) -> Any:
    module = import_module(f"aurora_backup.handlers.{handler}")
    name = environment["AWS_LAMBDA_FUNCTION_NAME"]
    with recording.listening(name, handler, environment), mock.patch.object(os, "environ", dict(environment)):
        return json.loads(json.dumps(module.handler(json.loads(json.dumps(event)), _Context())))
