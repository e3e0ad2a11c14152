"""The functions of the logical backup: what they take from an event, and what they give back."""

from __future__ import annotations

import json
import secrets
import traceback
from dataclasses import replace

import pytest

from aurora_backup import catalog, cli, deployment
from aurora_backup.errors import (
    BackupError,
    ConnectionFailed,
    DumpFailed,
    LogicalBackupFailed,
    PreflightFailed,
    SettingsError,
)
from aurora_backup.handlers import conclude_logical_backup, dump, find_instance, preflight, verify
from aurora_backup.ledger import Ledger
from aurora_backup.manifest import set_key
from aurora_backup.policy import RetentionPolicy
from aurora_backup.postgres import Login, Session
from tests.unit.dumping import ROWS, STARTED, leftovers

CANARY = "canary-p4ssw0rd"


class Context:
    def __init__(self, seconds: float = 900) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)


BUILD = {  # as CodeBuild describes one, cut to what is read and to what must not be told
    "Id": "dump:1",
    "BuildStatus": "FAILED",
    "Phases": [{"PhaseType": "QUEUED"}, {"PhaseType": "BUILD", "Contexts": [{"Message": "exit status 1"}]}],
    "Logs": {"GroupName": "/dumps", "StreamName": "1"},
    "Environment": {"EnvironmentVariables": [{"Name": "EVENT", "Value": "x" * 5000}]},
}


@pytest.fixture
def event(postgres):
    return {
        "execution": f"run-{secrets.token_hex(4)}",
        "started": "2026-11-21T02:00:00.123Z",
        "prefix": "logical-backups",
        "cluster": {
            "id": "main",
            "resource_id": f"cluster-{secrets.token_hex(4)}",
            "engine_version": "17.4",
            "arn": "a",
        },
        "instance": {"id": "i", "host": postgres.host, "port": postgres.port, "role": "writer", "reason": "only one"},
    }


@pytest.fixture
def deployed(monkeypatch, postgres, s3_server, s3_login, bucket_name, clients):
    """The environment of a deployed function, with the test's own S3 and a secret that needs no AWS."""
    for name, value in {
        "BACKUP_BUCKET": bucket_name,
        "OWNER": "Stack/Backup",
        "CLUSTER_ID": "main",
        "DB_AUTH": "secret",
        "DB_SECRET_ARN": "arn:of:the:secret",
        "PGSSLROOTCERT": str(postgres.ca),
        "AWS_ENDPOINT_URL_S3": s3_server.endpoint_url,
        "RETENTION_POLICY": RetentionPolicy.hipaa().to_json(),
    }.items():
        monkeypatch.setenv(name, value)
    login = Login(postgres.user, lambda: postgres.password)
    monkeypatch.setattr(deployment, "secret_login", lambda _arn: login)


def _one(event, database):
    return {**event, "database": database}


@pytest.mark.parametrize(
    ("lag", "role", "reason"),
    [
        (80, "reader", "chosen, 80 ms behind"),
        (61_000, "writer", "reader i is 61 s behind"),
        (None, "reader", "chosen"),  # of another instance, or no Aurora
    ],
)
def test_a_reader_that_is_a_minute_behind_is_left_for_the_writer(
    deployed, event, own_sample, postgres, lag, role, reason
):
    row = f"VALUES ('i', {lag}::float8), ('w', NULL)" if lag else "SELECT 'w', 1::float8"
    postgres.psql(
        "CREATE FUNCTION pg_catalog.aurora_replica_status(OUT server_id text, OUT replica_lag_in_msec float8) "
        f"RETURNS SETOF record LANGUAGE sql AS $$ {row} $$",
        own_sample.dbname,
    )
    writer = {**event["instance"], "id": "w", "reason": "to fall back to"}
    reader = {**event["instance"], "role": "reader", "reason": "chosen", "writer": writer}
    found = preflight.handler({**event, "instance": reader, "databases": [own_sample.dbname]}, None)
    assert (found["instance"]["role"], found["instance"]["reason"]) == (role, reason)
    assert [d["name"] for d in found["databases"]] == [own_sample.dbname]


def test_preflight_dump_verify_and_conclude(deployed, event, sample, bucket):
    checked = preflight.handler({**event, "databases": [sample.dbname]}, None)
    assert checked["refused"] == []
    (database,) = checked["databases"]
    assert database["set"] == f"logical-backups/{event['cluster']['resource_id']}/{sample.dbname}/20261121T020000Z/"
    assert (database["engine"], database["basis"]) == ("lambda", "no earlier set: assumed rates")
    made = dump.handler(_one(event, database), Context())
    assert (made["state"], made["rows"], made["set"]) == ("done", ROWS, database["set"])
    assert dump.handler(_one(event, database), Context())["state"] == "already-done"
    verified = verify.handler({"set": made["set"]}, None)
    assert verified["ok"]
    assert [tier["name"] for tier in verified["tiers"]] == ["s3-checksum", "full-decode"]
    assert json.loads(json.dumps(verified)) == verified
    summary = conclude_logical_backup.handler(
        {"refused": [], "results": [{"database": sample.dbname, "dump": made, "verified": verified}]}, None
    )
    assert summary["rows"] == ROWS
    again = preflight.handler({**event, "databases": [sample.dbname], "started": "2026-11-28T02:00:00Z"}, None)
    assert again["databases"][0]["basis"] == "the set of 2026-11-21T02:00:00.123000+00:00"
    record = Ledger(bucket).get("set", "Stack/Backup", made["set"])
    assert str(record.expires) == "2027-02-19 02:00:00.123000+00:00", "90 days, from the policy"


def test_one_bad_database_hides_no_other(deployed, event, sample, empty, postgres, monkeypatch):
    postgres.psql(f"CREATE ROLE narrow LOGIN PASSWORD '{CANARY}'")
    postgres.psql("CREATE TABLE open (a int); GRANT SELECT ON open TO narrow", empty.dbname)
    monkeypatch.setattr(deployment, "secret_login", lambda _arn: Login("narrow", lambda: CANARY))
    checked = preflight.handler({**event, "databases": [sample.dbname, "nowhere", empty.dbname]}, None)
    assert [d["name"] for d in checked["databases"]] == [empty.dbname]
    causes = {r["name"]: r["cause"] for r in checked["refused"]}
    assert 'database "nowhere" does not exist' in causes["nowhere"]
    assert "schema clinic (GRANT USAGE ON it)" in causes[sample.dbname]
    assert CANARY not in json.dumps(checked)


@pytest.mark.parametrize("good", [0, 1])
def test_a_password_that_is_refused_is_in_no_log_exception_or_alert(
    deployed, event, empty, postgres, monkeypatch, caplog, good
):
    """Refused at the snapshot session, or (good: 1) later, at pg_dump, when it has been rotated meanwhile."""
    passwords = iter([postgres.password] * good)
    login = Login(postgres.user, lambda: next(passwords, CANARY))
    monkeypatch.setattr(deployment, "secret_login", lambda _arn: login)
    key = set_key("logical-backups", event["cluster"]["resource_id"], f"{empty.dbname}-{good}", STARTED)
    with caplog.at_level("INFO"), pytest.raises(BackupError, match="password authentication failed") as caught:
        dump.handler(_one(event, {"name": empty.dbname, "set": key, "bytes": 1}), Context())
    trace = traceback.format_exception(caught.value)
    told = json.dumps({"errorMessage": str(caught.value), "errorType": "DumpFailed", "stackTrace": trace})
    with pytest.raises(LogicalBackupFailed, match="password authentication failed") as alert:
        conclude_logical_backup.handler(
            {"results": [{"database": empty.dbname, "error": "DumpFailed", "cause": told}]}, None
        )
    for text in (told, str(alert.value), caplog.text, repr(login)):
        assert CANARY not in text
        assert postgres.password not in text


def test_every_unreadable_object_is_named_with_its_remedy(own_sample, postgres):
    postgres.psql(f"CREATE ROLE almost LOGIN PASSWORD '{CANARY}'")
    postgres.psql("GRANT pg_read_all_data TO almost", own_sample.dbname)
    postgres.psql("SELECT lo_unlink(oid) FROM pg_largeobject_metadata; SELECT lo_create(424242)", own_sample.dbname)
    with Session(replace(own_sample, user="almost", password=lambda: CANARY)) as session:
        found = dict(catalog.unreadable(session))
    assert found["rows of clinic.visit (row-level security)"] == "ALTER ROLE ... BYPASSRLS"
    assert found["1 large objects, the first is 424242"] == "GRANT SELECT ON LARGE OBJECT"
    assert not any(what.startswith(("table", "sequence", "schema")) for what in found), "pg_read_all_data covers those"
    with Session(own_sample) as session:
        assert catalog.unreadable(session) == []


def test_databases_are_discovered_without_templates_and_rdsadmin(deployed, event, sample, postgres, monkeypatch):
    if "rdsadmin" not in postgres.psql("SELECT datname FROM pg_database"):
        postgres.psql("CREATE DATABASE rdsadmin TEMPLATE template0")
    monkeypatch.setattr(preflight, "check_database", lambda target, _major: len(target.dbname))
    names = {d["name"] for d in preflight.handler(event, None)["databases"]}
    assert {"postgres", sample.dbname} <= names
    assert not names & {"rdsadmin", "template0", "template1"}


def test_named_databases_come_from_the_environment(deployed, event, monkeypatch):
    monkeypatch.setenv("DATABASES", '["one", "two"]')
    monkeypatch.setattr(preflight, "check_database", lambda *_: 10**12)
    checked = preflight.handler(event, None)
    assert [(d["name"], d["engine"]) for d in checked["databases"]] == [("one", "codebuild"), ("two", "codebuild")]


def test_an_unreachable_server_is_an_error_when_discovering(deployed, event):
    event["instance"]["port"] = 1
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1/postgres"):
        preflight.handler(event, None)


def test_a_dump_that_runs_out_of_time_is_handed_over_and_the_engine_finishes_it(
    deployed, event, sample, bucket, monkeypatch, capsys
):
    monkeypatch.setattr("aurora_backup.upload.CHECK_SECONDS", 0)
    database = preflight.handler({**event, "databases": [sample.dbname]}, None)["databases"][0]
    handed = dump.handler(_one(event, database), Context(seconds=10))
    assert (handed["state"], handed["manifest_key"]) == ("handover", None)
    assert "10 s are left" in handed["reason"]
    assert leftovers(bucket, database["set"]) == ([], [])
    assert cli.main(["engine", "--event", json.dumps(_one(event, database)), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["state"], done["verified"]["ok"]) == ("done", True)
    # The state machine then asks the functions, which find everything done.
    assert dump.handler(_one(event, database), Context())["rows"] == ROWS
    assert verify.handler({"set": database["set"], "reuse": True}, None) == done["verified"]


def test_a_set_that_another_execution_is_making_is_left_to_it(deployed, event, sample, bucket):
    database = preflight.handler({**event, "databases": [sample.dbname]}, None)["databases"][0]
    handed = dump.handler({**_one(event, database), "execution": "the first"}, Context())
    assert handed["state"] == "done"
    bucket.remove(handed["manifest_key"])
    second = dump.handler(_one(event, database), Context())
    assert (second["state"], second["manifest_key"]) == ("already-done", None)
    assert "claimed by execution the first" in second["reason"]
    summary = conclude_logical_backup.handler({"results": [{"database": sample.dbname, "dump": second}]}, None)
    assert (summary["state"], summary["databases"], summary["rows"]) == ("elsewhere", [], 0)
    assert summary["elsewhere"] == [{name: second[name] for name in ("database", "set", "reason")}]


def test_exact_counts_have_the_time_that_there_is():
    assert [dump.count_seconds(left) for left in (900, 60, None)] == [300, 20, 7200]


def test_an_unknown_tier_is_refused(deployed):
    with pytest.raises(SettingsError, match="tiers must be among"):
        verify.handler({"set": "a/b/c/20261121T020000Z/", "tiers": ["hope"]}, None)


GOOD = {"database": "a", "dump": {"database": "a", "state": "done", "bytes": 5, "rows": 7, "set": "s", "seconds": 1.0,
                                  "manifest_key": "s/manifest.json"}}  # fmt: skip


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"refused": [{"name": "b", "cause": "no"}]}, "1 of 2 databases were not backed up: b: no"),
        (
            {"results": [GOOD, {"database": "b", "error": "DumpFailed", "cause": '{"errorMessage": "why"}'}]},
            "b: DumpFailed: why",
        ),
        ({"results": [GOOD, {"database": "b", "error": "States.Timeout", "cause": ""}]}, r"b: States\.Timeout"),
        (
            {"results": [GOOD, {"database": "b", "error": "States.TaskFailed", "cause": json.dumps({"Build": BUILD})}]},
            "b: States.TaskFailed: build dump:1 ended FAILED: exit status 1; its log is /dumps, stream 1",
        ),
        ({"results": [{**GOOD, "verified": {"tiers": [{"name": "t", "ok": False, "detail": "bad"}]}}]}, "a: t: bad"),
        ({"results": [{**GOOD, "dump": {"state": "handover"}}]}, "ended in state 'handover'"),
        ({"results": [{"database": "a"}]}, "ended in state None"),
        ({"results": [{"database": "a", "dump": {"state": "done"}}]}, "says nothing of a manifest"),
        ({"results": []}, "no database was backed up"),
        ({"results": [GOOD, {"database": "b", "error": "E", "cause": "DETAIL: Key (name)=(Jane Roe)"}]}, "b: E"),
    ],
)
def test_every_failed_database_is_named_with_its_cause_and_without_data(event, message):
    with pytest.raises(LogicalBackupFailed, match=message) as caught:
        conclude_logical_backup.handler({"results": [GOOD], **event}, None)
    assert "Jane" not in str(caught.value)


def test_a_tier_that_could_not_run_is_not_a_failure():
    verified = {"tiers": [{"name": "trial-restore", "ok": None, "detail": "no server here"}]}
    summary = conclude_logical_backup.handler({"results": [{**GOOD, "verified": verified}]}, None)
    assert (summary["bytes"], summary["rows"]) == (5, 7)


class Rds:
    """Answers as DescribeDBClusters and DescribeDBInstances do."""

    def __init__(self, instances):
        self._instances = instances

    def describe_db_clusters(self, **arguments):
        assert arguments == {"DBClusterIdentifier": "main"}
        members = [
            {
                "DBInstanceIdentifier": i["DBInstanceIdentifier"],
                "IsClusterWriter": i["writer"],
                "PromotionTier": i["tier"],
            }
            for i in self._instances
        ]
        cluster = {
            "DbClusterResourceId": "cluster-NEW",
            "EngineVersion": "17.4",
            "DBClusterArn": "arn",
            "DBClusterMembers": members,
        }
        return {"DBClusters": [{**cluster, "DBClusterIdentifier": "main"}]}

    def get_paginator(self, operation):
        assert operation == "describe_db_instances"
        return self

    def paginate(self, **arguments):
        assert arguments["Filters"] == [{"Name": "db-cluster-id", "Values": ["main"]}]
        return [{"DBInstances": [instance]} for instance in self._instances]


def _instance(name, *, writer=False, status="available", tier=1, infos=None):
    return {
        "DBInstanceIdentifier": name, "DBInstanceStatus": status, "writer": writer, "tier": tier,
        "Endpoint": {"Address": f"{name}.example", "Port": 5433}, "StatusInfos": infos or [],
    }  # fmt: skip


LAGGING = [{"StatusType": "read replication", "Normal": False, "Status": "error"}]
CHOICES = [
    ([_instance("w", writer=True)], ("w", "writer", "the cluster has no reader")),
    ([_instance("w", writer=True), _instance("r")], ("r", "reader", "an available reader without reported trouble")),
    ([_instance("w", writer=True), _instance("r", status="creating")], ("w", "writer", "reader r is creating")),
    ([_instance("w", writer=True), _instance("r", infos=LAGGING)],
     ("w", "writer", "reader r reports read replication error")),
    ([_instance("a", tier=1), _instance("b", tier=15), _instance("c", tier=15), _instance("w", writer=True)],
     ("b", "reader", "an available reader without reported trouble")),
]  # fmt: skip


@pytest.mark.parametrize(("instances", "expected"), CHOICES)
def test_a_good_reader_is_pinned_else_the_writer_and_the_reason_is_kept(deployed, monkeypatch, instances, expected):
    monkeypatch.setattr("boto3.client", lambda service: {"rds": Rds(instances)}[service])
    found = find_instance.handler({"prefix": "p"}, None)
    instance = found["instance"]
    assert (instance["id"], instance["role"], instance["reason"]) == expected
    assert (instance["host"], instance["port"]) == (f"{expected[0]}.example", 5433)
    assert found["cluster"] == {"id": "main", "resource_id": "cluster-NEW", "engine_version": "17.4", "arn": "arn"}
    assert found["prefix"] == "p"


CONFLICT = "archive 0 of database a: pg_dump: error: canceling statement due to conflict with recovery"


@pytest.mark.parametrize(
    ("told", "role", "asked"),
    [(CONFLICT, "reader", ["r", "w"]), (CONFLICT, "writer", ["r"]), ("relation gone", "reader", ["r"])],
)
def test_a_reader_that_cancels_the_dump_is_left_for_the_writer_once(deployed, event, monkeypatch, told, role, asked):
    writer = {"id": "w", "host": "w.example", "port": 5432, "role": "writer", "reason": "to fall back to"}
    event["instance"] = {**writer, "id": "r", "host": "r.example", "role": role, "writer": writer}
    sources = []

    def fails(target, _bucket, request, _options):
        sources.append((target.host, request.source["instance"]))
        raise DumpFailed(told)

    monkeypatch.setattr(dump, "dump_set", fails)
    key = set_key("logical-backups", event["cluster"]["resource_id"], "a", STARTED)
    with pytest.raises(DumpFailed):
        dump.handler(_one(event, {"name": "a", "set": key, "bytes": 1}), Context())
    assert [(host, i["id"]) for host, i in sources] == [(f"{name}.example", name) for name in asked]
    assert "writer" not in sources[0][1]
    if len(asked) > 1:
        assert sources[1][1]["reason"] == "reader r cancelled the dump: conflict with recovery"


def test_the_writer_goes_along_with_a_reader_only_when_it_is_available(deployed, monkeypatch):
    for status, writer in (("available", "w"), ("stopped", None)):
        instances = [_instance("w", writer=True, status=status), _instance("r")]
        monkeypatch.setattr("boto3.client", lambda _service, instances=instances: Rds(instances))
        instance = find_instance.handler({}, None)["instance"]
        assert (instance["id"], (instance.get("writer") or {}).get("id")) == ("r", writer)


def test_no_available_instance_is_said_with_each_one_s_state(deployed, monkeypatch):
    instances = [_instance("w", writer=True, status="stopped"), _instance("r", status="creating")]
    monkeypatch.setattr("boto3.client", lambda _service: Rds(instances))
    with pytest.raises(PreflightFailed, match="reader r is creating; writer w is stopped"):
        find_instance.handler({}, None)


def test_a_name_that_was_given_to_another_cluster_is_refused(deployed, monkeypatch):
    monkeypatch.setenv("CLUSTER_RESOURCE_ID", "cluster-OLD")
    monkeypatch.setattr("boto3.client", lambda _service: Rds([_instance("w", writer=True)]))
    with pytest.raises(PreflightFailed, match="must have the resource id cluster-OLD, got cluster-NEW"):
        find_instance.handler({}, None)
