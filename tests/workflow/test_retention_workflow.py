"""The retention workflow on the local AWS: the synthesised state machine, the bundled functions, real snapshots.

Time is given to the workflow: what was made a moment ago is old by the time that it decides by. What goes wrong is
wrong on the wire (`LocalAws.faulty`). Nothing wrong is deleted, and the plan and the alert say why.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import secrets
import time
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from aurora_backup import tags
from aurora_backup.handlers import act_on_retention, plan_retention
from aurora_backup.ledger import CreationRecord, Ledger
from aurora_backup.manifest import set_key
from aurora_backup.policy import RetentionPolicy
from aurora_backup.s3 import Bucket
from aurora_backup.sweep import confirm
from cdk_aurora_backup.assets import code_directory
from local.faults import Fault
from tests.synth.synthesis import Synthesised, backed_up, new_stack
from tests.unit.retention_world import manifest_of

ROLE = "arn:aws:iam::000000000000:role/anything"
OWNER = "Workflow/Backup"
POLICY = RetentionPolicy.hipaa().with_changes(
    {"logical": {"keep": {"days": 5}}, "on_demand": {"keep": {"days": 5}}, "sweep": {"enforce": True, "max_share": 1.0}}
)
WHO = {"who": "oncall@example.org", "why": "a test"}


def eventually(check, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def _package() -> bytes:
    target, root = io.BytesIO(), code_directory()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                out.write(path, path.relative_to(root))
    return target.getvalue()


@pytest.fixture(scope="module")
def definition() -> str:
    """The workflow as it is synthesised, references as <text>."""
    stack = new_stack()
    backed_up(stack)
    machines = Synthesised.of(stack).state_machines()
    return json.dumps(next(text for name, text in machines.items() if name.startswith("BackupRetention")))


@dataclass
class Managed:
    """One owner on the local AWS: a bucket, a cluster, the functions and their workflow."""

    aws: Any
    bucket: Bucket
    cluster: str
    resource_id: str
    machine: str
    functions: dict[str, str]
    queue: str

    @property
    def rds(self):
        return self.aws.client("rds")

    @property
    def ledger(self):
        return Ledger(self.bucket)

    def use(self) -> None:
        """Make the functions this owner's."""
        settings = _settings(self.bucket.name, self.resource_id)
        for arn in self.functions.values():
            self.aws.client("lambda").update_function_configuration(
                FunctionName=arn, Environment={"Variables": settings}
            )

    def alerts(self) -> list[str]:
        """What was told since the last time."""
        sqs, found = self.aws.client("sqs"), []
        while got := sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in got:
                sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
                found.append(message["Body"])
        return found

    def run(self, days: float, *faults: Fault, page_size: int | None = None) -> tuple[dict, dict]:
        """Run the workflow as of so many days from now, with faults; the plan and the result that it wrote."""
        with self.aws.faulty(*faults, page_size=page_size):
            self._execute(days)
        key = self.newest("plan.json")
        return self.bucket.read_json(key), self.bucket.read_json(key.replace("plan.json", "result.json"))

    def _execute(self, days: float) -> None:
        states = self.aws.client("stepfunctions")
        started = (datetime.now(UTC) + timedelta(days=days)).isoformat()
        arn = states.start_execution(
            stateMachineArn=self.machine,
            name=f"run-{secrets.token_hex(4)}",
            input=json.dumps({"started": started}),
        )["executionArn"]

        def ended():
            done = states.describe_execution(executionArn=arn)
            return done if done["status"] != "RUNNING" else None

        done = eventually(ended, 120)
        assert done["status"] == "SUCCEEDED", done

    def newest(self, name):
        listed = self.bucket.client.list_objects_v2(
            Bucket=self.bucket.name, Prefix="compliance-backups/evidence/retention/"
        )
        found = [o for o in listed["Contents"] if o["Key"].endswith(f"/{name}")]
        return max(found, key=lambda o: o["LastModified"])["Key"]

    def call(self, function: str, **event: Any) -> dict:
        answer = self.aws.client("lambda").invoke(FunctionName=self.functions[function], Payload=json.dumps(event))
        payload = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, payload
        return payload

    def snapshot(self, *, recorded=True, expires=None) -> str:
        """A real snapshot of the cluster, with our tags; its ARN once it is available."""
        name = f"on-demand-{secrets.token_hex(4)}"
        labels = tags.ours(OWNER, f"run-{name}", expires=expires)
        if recorded:
            self.record("cluster-snapshot", name)
        self.rds.create_db_cluster_snapshot(
            DBClusterSnapshotIdentifier=name, DBClusterIdentifier=self.cluster, Tags=tags.tag_list(labels)
        )
        return eventually(lambda: self.found(name, "available"))["DBClusterSnapshotArn"]

    def record(self, kind, name):
        now = datetime.now(UTC)
        self.ledger.put(CreationRecord(kind=kind, identifier=name, owner=OWNER, execution=f"run-{name}", created=now))

    def found(self, name, status=None):
        name = name.rpartition(":")[2]
        with contextlib.suppress(ClientError):
            (one,) = self.rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=name)["DBClusterSnapshots"]
            return one if status in {None, one["Status"]} else None
        return None

    def dump_set(self, days: float, resource_id: str) -> str:
        """A set that began so many days from now; S3 writes it now, so that it is as young as now or younger."""
        key = set_key("logical-backups", resource_id, "clinic", datetime.now(UTC) + timedelta(days=days))
        self.record("set", key)
        self.bucket.write(key + "0000.dump", "rows", once=True)
        self.bucket.write(key + "manifest.json", manifest_of(key, OWNER).to_json(), once=True)
        return key


@pytest.fixture(scope="module")
def functions(local_aws):
    """The three functions, made once: each test gives them its own environment."""
    package, client = _package(), local_aws.client("lambda")
    return {
        name: client.create_function(
            FunctionName=f"{name}-{secrets.token_hex(4)}",
            Runtime="python3.13",
            Role=ROLE,
            Handler=f"aurora_backup.handlers.{name}.handler",
            Code={"ZipFile": package},
            Timeout=60,
        )["FunctionArn"]
        for name in ("plan_retention", "act_on_retention", "legal_hold")
    }


@pytest.fixture
def managed(local_aws, functions, definition):
    """Enforced and confirmed, of a real cluster of its own."""
    with _managed(local_aws, functions, definition) as world:
        yield world


@pytest.fixture(scope="module")
def undisturbed(local_aws, functions, definition):
    """Another one, with an expired snapshot and an expired set, for tests in which nothing goes."""
    with _managed(local_aws, functions, definition) as world:
        world.points = [world.snapshot(), world.snapshot(), world.dump_set(-1, world.resource_id)]
        world.dump_set(0, world.resource_id)
        yield world


@contextlib.contextmanager
def _managed(local_aws, functions, definition):
    made = f"retention-{secrets.token_hex(4)}"
    rds, s3 = local_aws.client("rds"), local_aws.client("s3")
    rds.create_db_cluster(
        DBClusterIdentifier=made,
        Engine="aurora-postgresql",
        MasterUsername="master",
        ManageMasterUserPassword=True,
        BackupRetentionPeriod=35,
    )
    (cluster,) = rds.describe_db_clusters(DBClusterIdentifier=made)["DBClusters"]
    waiter = rds.get_waiter("db_cluster_available")
    waiter.wait(DBClusterIdentifier=made, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    s3.create_bucket(
        Bucket=made, CreateBucketConfiguration={"LocationConstraint": local_aws.region}, ObjectLockEnabledForBucket=True
    )
    sns, sqs = local_aws.client("sns"), local_aws.client("sqs")
    topic, queue = sns.create_topic(Name=made)["TopicArn"], sqs.create_queue(QueueName=made)["QueueUrl"]
    told = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=told, Attributes={"RawMessageDelivery": "true"})
    machine = local_aws.client("stepfunctions").create_state_machine(
        name=made, roleArn=ROLE, definition=_with_references(definition, functions, topic)
    )["stateMachineArn"]
    world = Managed(local_aws, Bucket(s3, made), made, cluster["DbClusterResourceId"], machine, functions, queue)
    world.use()
    confirm(world.bucket, OWNER, at=datetime.now(UTC), **WHO)
    yield world
    rds.delete_db_cluster(DBClusterIdentifier=world.cluster, SkipFinalSnapshot=True)


def _settings(made, resource_id):
    return {
        "BACKUP_BUCKET": made,
        "OWNER": OWNER,
        "CLUSTER_ID": made,
        "CLUSTER_RESOURCE_ID": resource_id,
        "DB_USER": "aurora_backup",
        "DB_AUTH": "iam",
        **POLICY.environment(),
    }


def _with_references(text, functions, topic):
    """Put what was made in the place of the template's references."""
    for logical, handler in {
        "Plan": "plan_retention",
        "Act": "act_on_retention",
        "LegalHold": "legal_hold",
    }.items():
        text = re.sub(rf"<BackupRetention{logical}[0-9A-F]{{8}}\.Arn>", functions[handler], text)
    text = re.sub(r"<Backup\w*Topic[0-9A-F]{8}>", topic, text).replace("<AWS::Partition>", "aws")
    assert "<" not in re.sub(r"\$\S+", "", text), text
    return text


def test_exactly_what_expired_is_deleted_and_everything_else_says_why_it_stays(managed):
    expired, forged = managed.snapshot(), managed.snapshot(recorded=False)
    declared = managed.snapshot(expires=datetime.now(UTC) + timedelta(days=100))
    held = managed.snapshot()
    managed.call(
        "legal_hold", action="place", matter="Doe", points=[held], started=datetime.now(UTC).isoformat(), **WHO
    )
    old, newest = managed.dump_set(-1, managed.resource_id), managed.dump_set(0, managed.resource_id)
    plan, result = managed.run(days=6)

    assert plan["refused"] == []
    rules = {d["identifier"]: d["rule"] for d in plan["decisions"]}
    assert {i: rules[i] for i in (expired, forged, declared, held, old, newest)} == {
        expired: "expired",
        forged: "unrecorded",
        declared: "in-time",
        held: "held",
        old: "expired",
        newest: "minimum",
    }
    assert {o["identifier"]: o["state"] for o in result["outcomes"]} == {expired: "deleted", old: "deleted"}
    assert managed.found(expired) is None
    assert all(managed.found(arn, "available") for arn in (forged, declared, held))
    assert managed.bucket.keys(old) == []
    assert len(managed.bucket.keys(newest)) == 2

    again, nothing = managed.run(days=6)
    assert (again["refused"], nothing["outcomes"]) == ([], [])
    assert [f for f in again["findings"] if f["rule"] == "vanished"] == []


def test_a_replayed_execution_repeats_its_plan(managed):
    expired = managed.snapshot()
    started = (datetime.now(UTC) + timedelta(days=6)).isoformat()
    first = managed.call("plan_retention", execution="same", started=started)
    managed.call("act_on_retention", plan=first["plan"], findings=[])
    later = managed.snapshot()

    assert managed.call("plan_retention", execution="same", started=started) == first
    assert managed.call("act_on_retention", plan=first["plan"], findings=[])["deleted"] == 1  # on record, not again
    assert (managed.found(expired), bool(managed.found(later))) == (None, True)


def test_a_hold_placed_between_plan_and_delete_keeps(managed):
    snapshot, old = managed.snapshot(), managed.dump_set(-1, managed.resource_id)
    managed.dump_set(0, managed.resource_id)
    now = datetime.now(UTC)
    plan = managed.call("plan_retention", execution="held", started=(now + timedelta(days=6)).isoformat())
    assert plan["deletions"] == 2
    managed.call("legal_hold", action="place", matter="Doe", points=[snapshot, old], started=now.isoformat(), **WHO)
    done = managed.call("act_on_retention", plan=plan["plan"], findings=[])

    assert (done["deleted"], done["kept"]) == (0, 2)
    reasons = {o["reason"] for o in managed.bucket.read_json(done["result"])["outcomes"]}
    assert all(reason.startswith("held: under legal hold: Doe") for reason in reasons)
    assert managed.found(snapshot, "available")
    assert len(managed.bucket.keys(old)) == 2

    later = (now + timedelta(seconds=1)).isoformat()
    released = managed.call("legal_hold", action="release", matter="Doe", started=later, **WHO)
    assert all(point["ok"] for point in released["points"])
    assert managed.call("act_on_retention", plan=plan["plan"], findings=[])["deleted"] == 2


def test_a_clock_ten_years_ahead_deletes_nothing_and_says_so(managed):
    snapshot = managed.snapshot()
    managed.dump_set(0, managed.resource_id)
    plan, result = managed.run(days=3653)

    assert result["outcomes"] == []
    assert any("is wrong or backups have stopped" in reason for reason in plan["refused"])
    assert managed.found(snapshot, "available")
    (alert,) = managed.alerts()
    assert "is wrong or backups have stopped" in alert


def test_a_new_cluster_of_the_same_name_does_not_inherit_the_old_ones_expiry(managed):
    old, newest = managed.snapshot(), managed.dump_set(0, "cluster-ANOTHER")
    (before,) = managed.rds.describe_db_clusters(DBClusterIdentifier=managed.cluster)["DBClusters"]
    managed.rds.delete_db_cluster(DBClusterIdentifier=managed.cluster, SkipFinalSnapshot=True)

    def gone():
        found = managed.rds.describe_db_clusters()["DBClusters"]
        return not any(c["DBClusterIdentifier"] == managed.cluster for c in found)

    eventually(gone)
    managed.rds.create_db_cluster(
        DBClusterIdentifier=managed.cluster,
        Engine="aurora-postgresql",
        MasterUsername="m",
        ManageMasterUserPassword=True,
    )
    waiter = managed.rds.get_waiter("db_cluster_available")
    waiter.wait(DBClusterIdentifier=managed.cluster, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    (after,) = managed.rds.describe_db_clusters(DBClusterIdentifier=managed.cluster)["DBClusters"]
    assert before["DbClusterResourceId"] != after["DbClusterResourceId"]
    fresh = managed.snapshot()
    plan, result = managed.run(days=6)

    rules = {d["identifier"]: d["rule"] for d in plan["decisions"]}
    assert (rules[old], rules[fresh], rules[newest]) == ("expired", "another-cluster", "another-cluster")
    assert [o["identifier"] for o in result["outcomes"]] == [old]
    assert managed.found(fresh, "available")


def test_the_last_good_set_is_held_by_the_workflow_and_let_go_when_a_newer_one_is_good(managed):
    last = managed.dump_set(0, managed.resource_id)
    plan, result = managed.run(days=3)
    assert plan["guard"] == [last]
    assert [o["state"] for o in result["guarded"]] == ["held"]
    (alert,) = managed.alerts()
    assert "past half of its retention" in alert
    listed = managed.bucket.client.list_object_versions(Bucket=managed.bucket.name, Prefix=last)["Versions"]
    with pytest.raises(ClientError):
        managed.bucket.client.delete_object(
            Bucket=managed.bucket.name, Key=listed[0]["Key"], VersionId=listed[0]["VersionId"]
        )

    managed.dump_set(2, managed.resource_id)
    assert managed.run(days=3)[0]["unguard"] == [last]
    assert managed.call("legal_hold", action="list") == {"holds": []}
    managed.bucket.client.delete_object(
        Bucket=managed.bucket.name, Key=listed[0]["Key"], VersionId=listed[0]["VersionId"]
    )


# --- What goes wrong on the wire


PAGE_OF_SNAPSHOTS = Fault(operation="rds:DescribeDBClusterSnapshots", sends="Marker", code="InvalidParameterValue")
PAGE_OF_SETS = Fault(operation="s3:ListObjectVersions", sends="key-marker", code="InternalError", status=500)
THROTTLED = Fault(operation="rds:DescribeDBClusterSnapshots")
PAGE_OF_RECORDS = Fault(operation="s3:ListObjectsV2", sends="continuation-token", code="InvalidArgument")
LOCKS = Fault(operation="s3:GetObjectLegalHold", code="AccessDenied", status=403)


@pytest.mark.parametrize(
    ("fault", "source"),
    [
        pytest.param(PAGE_OF_SNAPSHOTS, "RDS cluster snapshots", id="page 2 of the snapshots"),
        pytest.param(PAGE_OF_SETS, "dump sets", id="page 2 of the sets"),
        pytest.param(THROTTLED, "RDS cluster snapshots", id="throttled for good"),
    ],
)
def test_what_cannot_be_read_to_its_end_stops_every_deletion_and_is_told(undisturbed, fault, source):
    undisturbed.use()
    undisturbed.alerts()
    plan, result = undisturbed.run(6, fault, page_size=1)

    assert stopped(undisturbed, plan, fault) == [source]
    assert (result["refused"], result["outcomes"]) == (plan["refused"], [])
    (alert,) = undisturbed.alerts()
    assert source in alert
    assert fault.code in alert


@pytest.mark.parametrize(
    ("fault", "sources"),
    [
        pytest.param(PAGE_OF_RECORDS, ["RDS cluster snapshots", "dump sets"], id="page 2 of the creation records"),
        pytest.param(LOCKS, ["legal holds"], id="a lock that cannot be read"),
    ],
)
def test_records_and_holds_that_cannot_be_read_stop_every_deletion(undisturbed, monkeypatch, fault, sources):
    """The handlers, in this process: what is on the wire is the same."""
    for name, value in _settings(undisturbed.bucket.name, undisturbed.resource_id).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", undisturbed.aws.endpoint_url)
    started = (datetime.now(UTC) + timedelta(days=6)).isoformat()
    with undisturbed.aws.faulty(fault, page_size=1):
        planned = plan_retention.handler({"execution": fault.code, "started": started}, None)
        done = act_on_retention.handler({"plan": planned["plan"], "findings": planned["findings"]}, None)

    assert stopped(undisturbed, undisturbed.bucket.read_json(planned["plan"]), fault)[: len(sources)] == sources
    assert (done["deleted"], done["tell"]) == (0, True)


def stopped(managed, plan, fault):
    """What could not be read, each by the fault's code; everything that would have gone is still there."""
    assert all(there(managed, point) for point in managed.points)
    assert plan["refused"]
    begin = "could not be read completely, so nothing is deleted: "
    assert all(reason.startswith(begin) and fault.code in reason for reason in plan["refused"])
    return [reason.removeprefix(begin).split(":")[0] for reason in plan["refused"]]


def there(managed, point):
    return managed.found(point, "available") if point.startswith("arn:") else len(managed.bucket.keys(point)) == 2


def test_a_snapshot_that_stays_creating_is_waited_for_and_never_deleted(undisturbed):
    undisturbed.use()
    name = f"on-demand-{secrets.token_hex(4)}"
    undisturbed.record("cluster-snapshot", name)
    with undisturbed.aws.faulty(creating=[name]):
        made = undisturbed.rds.create_db_cluster_snapshot(
            DBClusterSnapshotIdentifier=name,
            DBClusterIdentifier=undisturbed.cluster,
            Tags=tags.tag_list(tags.ours(OWNER, f"run-{name}")),
        )["DBClusterSnapshot"]["DBClusterSnapshotArn"]
        plan = undisturbed.call(
            "plan_retention", execution=name, started=(datetime.now(UTC) + timedelta(days=6)).isoformat()
        )
        document = undisturbed.bucket.read_json(plan["plan"])
        found = next(d for d in document["decisions"] if d["identifier"] == made)
        assert (found["action"], found["rule"], found["reason"]) == ("wait", "pending", "still being made")
        assert undisturbed.found(name, "creating")
    eventually(lambda: undisturbed.found(name, "available"))
    undisturbed.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)


def test_throttling_now_and_then_is_waited_out_and_a_deletion_that_fails_for_good_keeps_no_other(managed):
    stays, goes = managed.snapshot(), managed.dump_set(-1, managed.resource_id)
    managed.dump_set(0, managed.resource_id)
    plan, result = managed.run(
        6,
        Fault(operation="rds:DescribeDBClusterSnapshots", after=1, times=3),
        Fault(operation="s3:ListObjectVersions", code="SlowDown", status=503, after=1, times=2),
        Fault(operation="rds:DeleteDBClusterSnapshot"),
        page_size=1,
    )

    assert plan["refused"] == []
    outcomes = {o["identifier"]: o for o in result["outcomes"]}
    assert {i: o["state"] for i, o in outcomes.items()} == {stays: "failed", goes: "deleted"}
    assert "Throttling" in outcomes[stays]["reason"]
    assert managed.found(stays, "available")
    assert managed.bucket.keys(goes) == []
    (alert,) = managed.alerts()
    assert stays in alert
    assert "Throttling" in alert

    assert [o["state"] for o in managed.run(days=6)[1]["outcomes"]] == ["deleted"]
    assert managed.found(stays) is None


def test_tags_that_are_forged_between_plan_and_delete_keep(managed):
    stranger = managed.snapshot()
    managed.dump_set(0, managed.resource_id)
    plan = managed.call(
        "plan_retention", execution="forged", started=(datetime.now(UTC) + timedelta(days=6)).isoformat()
    )
    assert plan["deletions"] == 1
    forged = tags.tag_list(tags.ours(OWNER, "another-run"))
    managed.rds.add_tags_to_resource(ResourceName=stranger, Tags=forged)
    done = managed.call("act_on_retention", plan=plan["plan"], findings=[])

    (outcome,) = managed.bucket.read_json(done["result"])["outcomes"]
    assert (outcome["state"], outcome["reason"]) == ("kept", "unrecorded: not ours: no creation record names it")
    assert managed.found(stranger, "available")
