"""The retention workflow on the local AWS: the synthesised state machine, the bundled functions, real snapshots.

Time is given to the workflow, and said to be ahead of the clock: what was made a moment ago is old by the time that it
decides by. What goes wrong is wrong on the wire (`LocalAws.faulty`). Nothing wrong is deleted, and the plan and the
alert say why. Where the state machine is not the point, the same handlers run in this process: the wire is the same.

One cluster serves most tests. Each has a bucket of its own, in which no creation record names another's snapshots.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ClientError

from aurora_backup import tags
from aurora_backup.handlers import act_on_retention, legal_hold, plan_retention
from aurora_backup.ledger import CreationRecord, Ledger
from aurora_backup.manifest import set_key
from aurora_backup.policy import RetentionPolicy
from aurora_backup.s3 import Bucket
from aurora_backup.sweep import confirm
from local.faults import Fault
from tests.synth.synthesis import Synthesised, backed_up, new_stack
from tests.unit.retention_world import manifest_of

ROLE = "arn:aws:iam::000000000000:role/anything"
OWNER = "Workflow/Backup"
POLICY = RetentionPolicy.hipaa().with_changes(
    {"logical": {"keep": {"days": 5}}, "on_demand": {"keep": {"days": 5}}, "sweep": {"enforce": True, "max_share": 1.0}}
)
WHO = {"who": "oncall@example.org", "why": "a test"}
HANDLERS = {handler.__name__.rpartition(".")[2]: handler for handler in (act_on_retention, legal_hold, plan_retention)}


def eventually(check, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


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
    points: tuple[str, ...] = ()

    @property
    def rds(self):
        return self.aws.client("rds")

    @property
    def ledger(self):
        return Ledger(self.bucket)

    def use(self) -> None:
        """Make the functions this owner's."""
        for arn in self.functions.values():
            self.aws.client("lambda").update_function_configuration(
                FunctionName=arn, Environment={"Variables": _settings(self)}
            )

    def alerts(self) -> list[str]:
        """What was told since the last time."""
        sqs, found = self.aws.client("sqs"), []
        while got := sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in got:
                sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
                found.append(message["Body"])
        return found

    def run(
        self, days: float, *faults: Fault, page_size: int | None = None, ahead_of_clock: bool = True
    ) -> tuple[dict, dict]:
        """Run the workflow as of so many days from now, with faults; the plan and the result that it wrote."""
        self.use()
        given = self.given(days) if ahead_of_clock else {"started": self.given(days)["started"]}
        with self.aws.faulty(*faults, page_size=page_size):
            self._execute(given)
        key = self.newest("plan.json")
        return self.bucket.read_json(key), self.bucket.read_json(key.replace("plan.json", "result.json"))

    @staticmethod
    def given(days: float) -> dict[str, Any]:
        """The input that decides by a time so many days from now."""
        return {"started": (datetime.now(UTC) + timedelta(days=days)).isoformat(), "ahead_of_clock": True}

    def handle(self, days: float, *faults: Fault, page_size: int | None = None) -> tuple[dict, dict]:
        """Plan and act in this process; the plan that was written, and what the act returned."""
        with self.aws.faulty(*faults, page_size=page_size):
            planned = self.call("plan_retention", execution=f"run-{secrets.token_hex(4)}", **self.given(days))
            done = self.call("act_on_retention", **planned)
        return self.bucket.read_json(planned["plan"]), done

    def call(self, handler: str, **event: Any) -> dict:
        """One handler in this process, in the environment of its function."""
        values = {**_settings(self), "AWS_ENDPOINT_URL": self.aws.endpoint_url, "AWS_REGION": self.aws.region}
        hurry = mock.patch("botocore.endpoint.time", mock.Mock(wraps=time, sleep=lambda _: None))  # between its retries
        with mock.patch.dict(os.environ, values), contextlib.redirect_stdout(io.StringIO()), hurry:
            return HANDLERS[handler].handler(event, None)

    def _execute(self, given: dict[str, Any]) -> None:
        states = self.aws.client("stepfunctions")
        name = f"run-{secrets.token_hex(4)}"
        arn = states.start_execution(stateMachineArn=self.machine, name=name, input=json.dumps(given))["executionArn"]

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

    def invoke(self, function: str, **event: Any) -> dict:
        """One deployed function."""
        self.use()
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
def functions(local_aws, package):
    """The three functions, made once: each test gives them its own environment."""
    client = local_aws.client("lambda")
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


@pytest.fixture(scope="module")
def cluster(local_aws):
    """The name of a real cluster, which no test changes."""
    made = f"retention-{secrets.token_hex(4)}"
    _create(local_aws, made)
    yield made
    local_aws.client("rds").delete_db_cluster(DBClusterIdentifier=made, SkipFinalSnapshot=True)


@pytest.fixture
def managed(local_aws, functions, definition, cluster):
    """Enforced and confirmed, with a bucket of its own."""
    return _managed(local_aws, functions, definition, cluster)


@pytest.fixture(scope="module")
def undisturbed(local_aws, functions, definition, cluster):
    """Another one, with an expired snapshot and an expired set, for tests in which nothing goes."""
    world = _managed(local_aws, functions, definition, cluster)
    world.points = (world.snapshot(), world.snapshot(), world.dump_set(-1, world.resource_id))
    world.dump_set(0, world.resource_id)
    return world


@pytest.fixture
def replaced(local_aws, functions, definition):
    """One of a cluster that was deleted after a snapshot of it, and made again under the same name; the snapshot."""
    name = f"retention-{secrets.token_hex(4)}"
    _create(local_aws, name)
    world = _managed(local_aws, functions, definition, name)
    old, rds = world.snapshot(), world.rds
    rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True)
    eventually(lambda: not any(c["DBClusterIdentifier"] == name for c in rds.describe_db_clusters()["DBClusters"]))
    _create(local_aws, name)
    assert _resource_id(local_aws, name) != world.resource_id
    yield world, old
    rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True)


def _create(local_aws, name):
    rds = local_aws.client("rds")
    rds.create_db_cluster(
        DBClusterIdentifier=name,
        Engine="aurora-postgresql",
        MasterUsername="master",
        ManageMasterUserPassword=True,
        BackupRetentionPeriod=35,
    )
    eventually(lambda: rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0]["Status"] == "available")


def _resource_id(local_aws, name):
    (found,) = local_aws.client("rds").describe_db_clusters(DBClusterIdentifier=name)["DBClusters"]
    return found["DbClusterResourceId"]


def _managed(local_aws, functions, definition, cluster):
    made, s3 = f"retention-{secrets.token_hex(4)}", local_aws.client("s3")
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
    bucket = Bucket(s3, made)
    confirm(bucket, OWNER, at=datetime.now(UTC), **WHO)
    return Managed(local_aws, bucket, cluster, _resource_id(local_aws, cluster), machine, functions, queue)


def _settings(managed):
    return {
        "BACKUP_BUCKET": managed.bucket.name,
        "OWNER": OWNER,
        "CLUSTER_ID": managed.cluster,
        "CLUSTER_RESOURCE_ID": managed.resource_id,
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
    managed.invoke(
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

    again, done = managed.handle(days=6)
    assert (again["refused"], done["deleted"], done["kept"], done["failed"]) == ([], 0, 0, [])
    assert [f for f in again["findings"] if f["rule"] == "vanished"] == []


def test_a_replayed_execution_repeats_its_plan(managed):
    expired = managed.snapshot()
    started = managed.given(days=6)
    first = managed.call("plan_retention", execution="same", **started)
    managed.call("act_on_retention", **first)
    later = managed.snapshot()

    assert managed.call("plan_retention", execution="same", **started) == first
    assert managed.call("act_on_retention", **first)["deleted"] == 1  # on record, not again
    assert (managed.found(expired), bool(managed.found(later))) == (None, True)


def test_what_changes_between_plan_and_delete_keeps(managed):
    """A hold is placed, tags are forged, a snapshot is only now being made, though the plan says that it goes."""
    held, stranger, old = managed.snapshot(), managed.snapshot(), managed.dump_set(-1, managed.resource_id)
    managed.dump_set(0, managed.resource_id)
    stuck = f"on-demand-{secrets.token_hex(4)}"
    managed.record("cluster-snapshot", stuck)
    now = datetime.now(UTC)
    with managed.aws.faulty(creating=[stuck]):
        made = managed.rds.create_db_cluster_snapshot(
            DBClusterSnapshotIdentifier=stuck,
            DBClusterIdentifier=managed.cluster,
            Tags=tags.tag_list(tags.ours(OWNER, f"run-{stuck}")),
        )["DBClusterSnapshot"]["DBClusterSnapshotArn"]
        plan = managed.call("plan_retention", execution="changes", **managed.given(days=6))
        document = managed.bucket.read_json(plan["plan"])
        found = next(d for d in document["decisions"] if d["identifier"] == made)
        assert (found["action"], found["rule"], found["reason"]) == ("wait", "pending", "still being made")
        assert plan["deletions"] == 3
        found["action"] = "delete"
        managed.bucket.write(plan["plan"], json.dumps(document), once=False)
        managed.call("legal_hold", action="place", matter="Doe", points=[held, old], started=now.isoformat(), **WHO)
        forged = tags.tag_list(tags.ours(OWNER, "another-run"))
        managed.rds.add_tags_to_resource(ResourceName=stranger, Tags=forged)
        done = managed.call("act_on_retention", **plan)
        assert managed.found(stuck, "creating")

    assert (done["deleted"], done["kept"]) == (0, 4)
    reasons = {o["identifier"]: o["reason"] for o in managed.bucket.read_json(done["result"])["outcomes"]}
    assert reasons == {
        held: "held: under legal hold: Doe, held by the service itself",
        old: "held: under legal hold: Doe, held by the service itself",
        stranger: "unrecorded: not ours: no creation record names it",
        made: "pending: still being made",
    }
    assert all(there(managed, point) for point in (held, stranger, old))

    eventually(lambda: managed.found(stuck, "available"))
    later = datetime.now(UTC).isoformat()
    released = managed.call("legal_hold", action="release", matter="Doe", started=later, **WHO)
    assert all(point["ok"] for point in released["points"])
    assert managed.call("act_on_retention", **plan)["deleted"] == 3


def test_a_clock_ten_years_ahead_deletes_nothing_and_says_so(managed):
    snapshot = managed.snapshot()
    managed.dump_set(0, managed.resource_id)
    plan, result = managed.run(days=3653, ahead_of_clock=False)

    assert result["outcomes"] == []
    assert any("is ahead of the clock" in reason for reason in plan["refused"])
    assert any("is wrong or backups have stopped" in reason for reason in plan["refused"])
    assert managed.found(snapshot, "available")
    (alert,) = managed.alerts()
    assert "is wrong or backups have stopped" in alert


def test_a_new_cluster_of_the_same_name_does_not_inherit_the_old_ones_expiry(replaced):
    """The functions know the resource id of the cluster that had the name before."""
    managed, old = replaced
    fresh, newest = managed.snapshot(), managed.dump_set(0, "cluster-ANOTHER")
    plan, done = managed.handle(days=6)

    rules = {d["identifier"]: d["rule"] for d in plan["decisions"]}
    assert (rules[old], rules[fresh], rules[newest]) == ("expired", "another-cluster", "another-cluster")
    assert [o["identifier"] for o in managed.bucket.read_json(done["result"])["outcomes"]] == [old]
    assert managed.found(fresh, "available")


def test_the_last_good_set_is_held_by_the_workflow_and_let_go_when_a_newer_one_is_good(managed):
    last = managed.dump_set(0, managed.resource_id)
    plan, done = managed.handle(days=3)
    assert plan["guard"] == [last]
    assert [o["state"] for o in managed.bucket.read_json(done["result"])["guarded"]] == ["held"]
    assert done["tell"]
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
PAGE_OF_SETS = Fault(operation="s3:ListObjectVersions", sends="key-marker", code="AccessDenied", status=403)
THROTTLED = Fault(operation="rds:DescribeDBClusterSnapshots")
PAGE_OF_RECORDS = Fault(operation="s3:ListObjectsV2", sends="continuation-token", code="InvalidArgument")
LOCKS = Fault(operation="s3:GetObjectLegalHold", code="AccessDenied", status=403)


def test_a_page_that_fails_stops_every_deletion_and_is_told(undisturbed):
    undisturbed.alerts()
    plan, result = undisturbed.run(6, PAGE_OF_SNAPSHOTS, page_size=1)

    assert stopped(undisturbed, plan, PAGE_OF_SNAPSHOTS) == ["RDS cluster snapshots"]
    assert (result["refused"], result["outcomes"]) == (plan["refused"], [])
    (alert,) = undisturbed.alerts()
    assert "RDS cluster snapshots" in alert
    assert PAGE_OF_SNAPSHOTS.code in alert


@pytest.mark.parametrize(
    ("fault", "sources"),
    [
        pytest.param(PAGE_OF_SETS, ["dump sets"], id="page 2 of the sets"),
        pytest.param(THROTTLED, ["RDS cluster snapshots"], id="throttled for good"),
        pytest.param(PAGE_OF_RECORDS, ["RDS cluster snapshots", "dump sets"], id="page 2 of the creation records"),
        pytest.param(LOCKS, ["legal holds"], id="a lock that cannot be read"),
    ],
)
def test_what_cannot_be_read_to_its_end_stops_every_deletion(undisturbed, fault, sources):
    plan, done = undisturbed.handle(6, fault, page_size=1)

    assert stopped(undisturbed, plan, fault)[: len(sources)] == sources
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

    assert managed.handle(days=6)[1]["deleted"] == 1
    assert managed.found(stays) is None
