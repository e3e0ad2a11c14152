"""The commands `hold` and `retention`, and the functions behind the workflows, end to end on a small AWS."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from aurora_backup import cli, retention_cli, retention_edges
from aurora_backup.errors import SettingsError
from aurora_backup.handlers import act_on_retention, legal_hold, plan_retention
from aurora_backup.holds import HoldKeeper, HoldRefused
from aurora_backup.rds import Rds
from aurora_backup.recovery_edges import Edges
from aurora_backup.sweep import confirmation_key
from tests.unit.retention_world import ARN, BUCKET, NOW, OWNER, US, make_world

WHERE = ["--bucket", BUCKET, "--owner", OWNER, "--region", "eu-west-1", "--json"]
WHY = ["--who", "counsel@example.org", "--why", "preservation letter"]


@pytest.fixture
def world(monkeypatch):
    with make_world() as made:
        made.clock = datetime(2100, 1, 1, tzinfo=UTC)
        for module in (retention_edges, plan_retention, legal_hold):
            monkeypatch.setattr(module, "utc_now", lambda: made.clock)
        clients = {"rds": made.rds_client, "backup": made.backup}
        monkeypatch.setattr(retention_cli, "_client", lambda _arguments, service: clients[service])
        monkeypatch.setattr("aurora_backup.recovery_edges.make_client", lambda: made.rds_client)
        monkeypatch.setattr(retention_edges, "_backup_client", lambda: made.backup)
        for name, value in {
            "BACKUP_BUCKET": BUCKET,
            "OWNER": OWNER,
            "CLUSTER_ID": "clinic",
            "CLUSTER_RESOURCE_ID": US,
            "DB_USER": "aurora_backup",
            "RETENTION_POLICY": made.policy.to_json(),
        }.items():
            monkeypatch.setenv(name, value)
        yield made


def run(capsys, *arguments):
    status = cli.main([*arguments])
    return status, json.loads(capsys.readouterr().out or "{}")


def test_a_hold_is_placed_listed_and_released(world, capsys):
    arn = world.snapshot("one", 5)
    status, placed = run(capsys, "hold", "place", *WHERE, *WHY, "--matter", "Doe", "--point", arn)
    assert (status, placed["points"][0]["ok"]) == (0, True)

    status, listed = run(capsys, "hold", "list", *WHERE)
    assert [(h["matter"], h["points"]) for h in listed["holds"]] == [("Doe", [arn])]

    assert run(capsys, "hold", "release", *WHERE, *WHY, "--matter", "Doe")[0] == 0
    status, listed = run(capsys, "hold", "list", *WHERE)
    assert (listed["holds"], [e["action"] for e in listed["events"]]) == ([], ["placed", "released"])


def test_a_store_that_does_not_follow_is_a_failure(capsys, monkeypatch):
    with make_world(object_lock=False) as world:
        monkeypatch.setattr(retention_cli, "_client", lambda *_: world.rds_client)
        key = world.dump_set(NOW)
        status, document = run(capsys, "hold", "place", *WHERE, *WHY, "--matter", "Doe", "--point", key)

    assert (status, document["ok"]) == (1, False)


def test_a_hold_of_aws_backup(world, capsys):
    times = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-06-01T00:00:00Z"]
    aws = ["--aws-backup", "--matter", "Doe", *WHY]
    status, made = run(capsys, "hold", "place", *WHERE, *aws, *times, "--vault", "v")
    assert (status, made["hold_id"]) == (0, "hold-0")
    assert run(capsys, "hold", "list", *WHERE, "--aws-backup")[1]["aws_backup"][0]["title"] == "Doe"
    assert run(capsys, "hold", "release", *WHERE, *aws, "--hold-id", "hold-0")[0] == 0
    assert world.backup.cancelled[0]["CancelDescription"] == "counsel@example.org: preservation letter"


def test_a_hold_of_aws_backup_and_its_release_are_evidence_too(world, capsys):
    aws = ["--aws-backup", "--matter", "Doe", *WHY]
    times = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-06-01T00:00:00Z"]
    _, made = run(capsys, "hold", "place", *WHERE, *aws, *times, "--vault", "v")
    (held,) = run(capsys, "hold", "list", *WHERE)[1]["holds"]
    for wrong in ({"--matter": "Roe", "--hold-id": "hold-0"}, {"--matter": "Doe", "--hold-id": "hold-1"}):
        others = [each for pair in wrong.items() for each in pair]
        assert cli.main(["hold", "release", *WHERE, "--aws-backup", *WHY, *others]) == 1
        assert (
            f"hold_id must be a hold of matter '{wrong['--matter']}', got {wrong['--hold-id']}"
            in capsys.readouterr().err
        )
    assert world.backup.cancelled == []
    assert (held["matter"], held["points"], held["who"]) == ("Doe", ["aws-backup-hold:hold-0"], "counsel@example.org")
    assert world.bucket.read_json(made["evidence"])["points"] == held["points"]

    assert cli.main(["hold", "release", *WHERE, *WHY, "--matter", "Doe"]) == 1
    assert "hold-0 is a hold of AWS Backup's: release it with --aws-backup" in capsys.readouterr().err
    assert world.backup.cancelled == []
    _, released = run(capsys, "hold", "release", *WHERE, *aws, "--hold-id", "hold-0")
    listed = run(capsys, "hold", "list", *WHERE)[1]
    assert (listed["holds"], [e["action"] for e in listed["events"]]) == ([], ["placed", "released"])
    assert world.bucket.read_json(released["evidence"])["action"] == "released"


def test_a_release_of_a_matter_that_aws_backup_holds_too_releases_the_points_and_leaves_that_hold(world, capsys):
    arn = world.snapshot("one", 5)
    times = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-06-01T00:00:00Z"]
    run(capsys, "hold", "place", *WHERE, "--aws-backup", "--matter", "Doe", *WHY, *times, "--vault", "v")
    run(capsys, "hold", "place", *WHERE, *WHY, "--matter", "Doe", "--point", arn)
    assert run(capsys, "hold", "release", *WHERE, *WHY, "--matter", "Doe")[0] == 0

    (held,) = run(capsys, "hold", "list", *WHERE)[1]["holds"]
    assert held["points"] == ["aws-backup-hold:hold-0"]


def test_what_the_register_refuses_is_not_told_to_aws_backup(world, capsys):
    times = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-06-01T00:00:00Z"]
    arguments = ["--aws-backup", "--matter", "Doe <v> Clinic", *WHY, *times, "--vault", "v"]
    assert cli.main(["hold", "place", *WHERE, *arguments]) == 1
    assert "matter must be at most 80 letters" in capsys.readouterr().err
    assert world.backup.holds == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["place", *WHY, "--point", "x"], "--matter must be given"),
        (["place", "--matter", "Doe", "--who", "me", "--point", "x"], "--why must be given"),
        (["place", *WHY, "--matter", "Doe", "--aws-backup"], "--from, --to and --vault"),
        (["release", *WHY, "--matter", "Doe", "--aws-backup"], "--hold-id must be given"),
    ],
)
def test_what_is_missing_is_wrong_usage_by_name(world, capsys, arguments, named):
    assert cli.main(["hold", *arguments[:1], *WHERE, *arguments[1:]]) == 2
    assert named in capsys.readouterr().err


def test_a_hold_of_nothing_fails(world, capsys):
    assert cli.main(["hold", "place", *WHERE, *WHY, "--matter", "Doe", "--point", ARN + "none"]) == 1
    assert "points must exist" in capsys.readouterr().err


def test_a_time_without_a_zone_is_wrong_usage(world, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["hold", "place", *WHERE, "--from", "2026-01-01"])
    assert ended.value.code == 2
    assert "with a time zone" in capsys.readouterr().err


def test_the_last_plan_is_shown_and_confirmed(world, capsys):
    assert run(capsys, "retention", "show", *WHERE)[0] == 1
    world.snapshot("aged", 200)
    world.dump_set(NOW - timedelta(days=1))
    world.sweeper.plan(execution="run-1", now=NOW)
    status, shown = run(capsys, "retention", "show", *WHERE)
    assert (status, shown["mode"]) == (0, "unconfirmed")

    assert run(capsys, "retention", "confirm", *WHERE)[0] == 2
    assert run(capsys, "retention", "confirm", *WHERE, *WHY)[0] == 0
    assert world.bucket.read_json(confirmation_key(OWNER))["who"] == "counsel@example.org"


def test_a_refused_plan_is_shown_as_a_failure(world, capsys):
    world.snapshot("aged", 200)
    world.sweeper.plan(execution="run-1", now=NOW + timedelta(days=3650))

    assert run(capsys, "retention", "show", *WHERE)[0] == 1
    assert cli.main(["retention", "show", *WHERE[:-1]]) == 1
    assert "REFUSED: no good recovery point" in capsys.readouterr().out


# --- The functions


def plan_and_act(now=NOW, execution="run-1"):
    planned = plan_retention.handler({"execution": execution, "started": now.isoformat()}, None)
    return planned, act_on_retention.handler({"plan": planned["plan"], "findings": planned["findings"]}, None)


def test_the_functions_plan_and_act(world, capsys):
    world.snapshot("aged", 200)
    world.snapshot("young", 1)
    expired, recent = world.dump_set(NOW - timedelta(days=100)), world.dump_set(NOW - timedelta(days=1))
    assert run(capsys, "retention", "confirm", *WHERE, *WHY)[0] == 0
    planned, done = plan_and_act()

    assert (planned["mode"], planned["deletions"], planned["refused"]) == ("enforce", 2, [])
    assert {k: done[k] for k in ("deleted", "kept", "failed", "unheld")} == {
        "deleted": 2,
        "kept": 0,
        "failed": [],
        "unheld": [],
    }
    assert world.bucket.read_json(done["result"])["plan"] == planned["plan"]
    assert world.rds_client.deleted == ["aged"]
    assert (world.objects(expired), len(world.objects(recent))) == ([], 2)


def test_the_plan_prints_its_metrics(world, capsys):
    world.dump_set(NOW - timedelta(days=1))
    world.snapshot("young", 1)
    plan_retention.handler({"execution": "run-1", "started": NOW.isoformat()}, None)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    whole, *tiers = lines
    assert (whole["Owner"], whole["PlanRefused"], whole["SnapshotQuotaUsed"]) == (OWNER, 0, 1.0)
    assert {(t["Tier"], t["Kind"], t.get("NewestAge"), t["GoodCopies"]) for t in tiers} == {
        ("logical", "set", 86400.0, 1),
        ("on-demand", "cluster-snapshot", 86400.0, 1),
        ("automated", "automated-snapshot", None, 0),
        ("weekly", "recovery-point", None, 0),
        ("monthly", "recovery-point", None, 0),
    }
    assert {t["Kind"]: t["MonthlyCost"] for t in tiers if t["GoodCopies"]} == {
        "set": pytest.approx(0, abs=0.001),
        "cluster-snapshot": pytest.approx((2 << 30) / 1e9 * 0.021, rel=0.001),
    }
    assert whole["_aws"]["Timestamp"] == int(world.clock.timestamp() * 1000)  # not the time that was given
    assert {m["Name"] for m in whole["_aws"]["CloudWatchMetrics"][0]["Metrics"]} <= set(whole)


def test_aws_backup_s_points_count_against_the_quota(world, capsys, monkeypatch):
    monkeypatch.setenv("BACKUP_VAULTS", '["vault"]')
    world.backup.points["vault"] = [
        {"RecoveryPointArn": f"arn:{n}", "ResourceType": "Aurora", "Status": "COMPLETED", "CreationDate": NOW}
        for n in range(3)
    ]
    world.snapshot("young", 1)
    world.dump_set(NOW - timedelta(days=1))
    plan_retention.handler({"execution": "run-1", "started": NOW.isoformat()}, None)

    assert json.loads(capsys.readouterr().out.splitlines()[0])["SnapshotQuotaUsed"] == 4.0
    monkeypatch.setenv("SNAPSHOT_QUOTA", "4")
    planned = plan_retention.handler({"execution": "run-2", "started": NOW.isoformat()}, None)
    assert json.loads(capsys.readouterr().out.splitlines()[0])["SnapshotQuotaUsed"] == 100.0
    assert "4 cluster snapshots, the quota is 4" in {f["message"] for f in planned["findings"]}


def test_a_last_good_set_that_could_not_be_held_is_told(world, monkeypatch):
    last = world.dump_set(NOW)
    monkeypatch.setattr(HoldKeeper, "_lock_of", lambda *_: False)  # S3 says yes, and does not hold
    planned, _ = plan_and_act(NOW + timedelta(days=46))
    done = act_on_retention.handler({"plan": planned["plan"], "findings": []}, None)

    assert [(o["identifier"], o["state"]) for o in done["unheld"]] == [(last, "failed")]
    assert done["tell"] is True


def test_without_prices_for_the_region_the_metrics_say_no_cost(world, capsys, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "mars-1")
    world.snapshot("young", 1)
    planned = plan_retention.handler({"execution": "run-1", "started": NOW.isoformat()}, None)

    assert "MonthlyCost" not in capsys.readouterr().out
    assert "region must be one of" in world.bucket.read_json(planned["plan"])["costs"]["problem"]


def test_the_functions_decide_by_a_time_that_has_not_come_only_when_told_to(world, capsys):
    world.clock = NOW
    world.snapshot("young", 1)
    assert run(capsys, "retention", "confirm", *WHERE, *WHY)[0] == 0
    later = {"started": (NOW + timedelta(days=200)).isoformat()}
    planned = plan_retention.handler({"execution": "run-1", **later, "ahead_of_clock": "yes"}, None)
    assert (planned["ahead_of_clock"], act_on_retention.handler(planned, None)["deleted"]) == (False, 0)
    assert "is ahead of the clock" in planned["refused"][0]

    planned = plan_retention.handler({"execution": "run-2", **later, "ahead_of_clock": True}, None)
    assert (planned["refused"], act_on_retention.handler(planned, None)["deleted"]) == ([], 1)


def test_the_function_refuses_a_naive_time(world):
    with pytest.raises(SettingsError, match="started must be an ISO 8601 time with a time zone"):
        plan_retention.handler({"execution": "x", "started": "2026-11-23T05:30:00"}, None)


@pytest.mark.parametrize("why", ["refused", "failed", "unconfirmed", "findings", None])
def test_a_person_is_told_when_there_is_something_to_look_at(world, capsys, why):
    world.snapshot("aged", 200)
    world.snapshot("young", 1)
    if why != "unconfirmed":
        run(capsys, "retention", "confirm", *WHERE, *WHY)
    if why == "refused":
        world.rds_client.fail_page = 1
    world.rds_client.deletes_nothing = why == "failed"
    planned = plan_retention.handler({"execution": "run-1", "started": NOW.isoformat()}, None)
    findings = planned["findings"] if why == "findings" else []  # months of backups are missing in this small world
    done = act_on_retention.handler({"plan": planned["plan"], "findings": findings}, None)

    assert done["tell"] is (why is not None)


def test_the_last_good_set_is_held_and_released_by_the_functions(world):
    last = world.dump_set(NOW)
    late = NOW + timedelta(days=46)
    planned, done = plan_and_act(late)
    assert (planned["guard"], done["unheld"]) == (1, [])
    assert world.keeper.held_in_s3(last)

    world.dump_set(late - timedelta(days=1))
    later = late + timedelta(hours=1)
    planned, _ = plan_and_act(later, "run-2")
    event = {"action": "release-guards", "points": planned["unguard"], "started": later.isoformat()}
    done = legal_hold.handler(event, None)
    assert [p["point"] for p in done["points"]] == [last]
    assert not world.keeper.held_in_s3(last)
    assert legal_hold.handler({**event, "points": []}, None) == {"matter": "last-good-set", "points": []}


def test_releasing_guards_cannot_release_a_legal_hold(world):
    arn = world.snapshot("one", 5)
    world.keeper.place("Doe", [arn], who="w", why="y", at=NOW)
    legal_hold.handler({"action": "release-guards", "points": [arn], "started": NOW.isoformat()}, None)

    assert [h.matter for h in world.keeper.holds()] == ["Doe"]


def test_the_hold_function_places_lists_and_releases(world):
    arn = world.snapshot("one", 5)
    about = {"matter": "Doe", "who": "w", "why": "y"}
    placed = legal_hold.handler({"action": "place", **about, "points": [arn], "started": NOW.isoformat()}, None)
    assert placed["points"][0]["ok"]
    assert legal_hold.handler({"action": "list"}, None)["holds"][0]["matter"] == "Doe"
    later = (NOW + timedelta(days=1)).isoformat()
    legal_hold.handler({"action": "release", **about, "started": later}, None)
    assert legal_hold.handler({"action": "list"}, None) == {"holds": []}
    with pytest.raises(HoldRefused, match="action must be place, list, release"):
        legal_hold.handler({"action": "forget", "started": later}, None)


def test_a_hold_that_a_store_did_not_take_fails_the_function_by_name(world, monkeypatch):
    arn = world.snapshot("one", 5)
    monkeypatch.setattr(world.rds_client, "add_tags_to_resource", lambda **_: None)
    event = {"action": "place", "matter": "Doe", "who": "w", "why": "y", "points": [arn], "started": NOW.isoformat()}

    with pytest.raises(legal_hold.HoldNotApplied, match=r"matter 'Doe' stays held in the register.*:one: HoldError"):
        legal_hold.handler(event, None)


def test_the_quota_is_a_number():
    assert (retention_edges.quota({}), retention_edges.quota({"SNAPSHOT_QUOTA": "250"})) == (100, 250)
    for text in ("many", "0", "-1", "1.5"):
        with pytest.raises(SettingsError, match="SNAPSHOT_QUOTA must be a whole number above 0"):
            retention_edges.quota({"SNAPSHOT_QUOTA": text})


def test_vaults_are_a_list_of_names():
    assert retention_edges.vaults({}) == ()
    assert retention_edges.vaults({"BACKUP_VAULTS": '["a", "b"]'}) == ("a", "b")
    for text in ("a", '{"a": 1}', "[1]", '[""]'):
        with pytest.raises(SettingsError, match="BACKUP_VAULTS must be a JSON list of vault names"):
            retention_edges.vaults({"BACKUP_VAULTS": text})


def test_a_cluster_that_is_gone_and_has_no_known_id_has_no_lineage(world, monkeypatch):
    monkeypatch.delenv("CLUSTER_RESOURCE_ID")
    monkeypatch.setattr(Rds, "cluster", lambda *_: None)
    world.snapshot("aged", 200)
    planned, _ = plan_and_act()

    assert planned["refused"] == ["the cluster's resource id is not known"]
    assert Edges.from_environment().settings.cluster_resource_id is None
