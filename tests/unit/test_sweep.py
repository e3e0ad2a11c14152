"""The sweep: what is planned, what is looked at again, what is deleted, and what is recorded."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from aurora_backup import tags
from aurora_backup.holds import prefix
from aurora_backup.retention import GUARD_MATTER
from aurora_backup.sweep import PlanNotActedOn, confirm, confirmation_key, folder
from tests.unit.retention_world import NOW, OWNER, US, make_world, manifest_of, throttled

WHO = {"who": "oncall@example.org", "why": "reviewed the first plan"}
RECENT = NOW - timedelta(days=1)
OLD = NOW - timedelta(days=100)


@pytest.fixture
def world():
    """Enforced and confirmed; a recent set, an expired set, a recent and an expired snapshot of ours."""
    with make_world() as made:
        made.recent = made.dump_set(RECENT)
        made.expired = made.dump_set(OLD)
        made.young = made.snapshot("young", 10)
        made.aged = made.snapshot("aged", 200)
        confirm(made.bucket, OWNER, at=NOW, **WHO)
        yield made


def run(world, now=NOW, execution="run-1"):
    """Plan and act; return the plan and the result."""
    key, plan = world.sweeper.plan(execution=execution, now=now)
    return plan, world.sweeper.act(key)


def states(result):
    return {o["identifier"]: o["state"] for o in result["outcomes"]}


def test_exactly_what_expired_is_deleted(world):
    plan, result = run(world)

    assert states(result) == {world.expired: "deleted", world.aged: "deleted"}
    assert world.rds_client.deleted == ["aged"]
    assert world.objects(world.expired) == []
    assert len(world.objects(world.recent)) == 2
    assert {d["identifier"]: d["action"] for d in plan["decisions"]} == {
        world.recent: "keep",
        world.expired: "delete",
        world.young: "keep",
        world.aged: "delete",
    }


@pytest.mark.parametrize("damage", ["lost", "emptied", "replaced"])
def test_a_set_whose_archives_are_not_those_of_its_manifest_is_no_copy_to_rely_on(world, damage):
    archive = world.recent + "0000.dump"
    if damage == "replaced":  # by as many bytes: only the version tells
        manifest = manifest_of(world.recent, OWNER)
        (version,) = world.bucket.client.list_object_versions(Bucket="backups", Prefix=archive)["Versions"]
        manifest = replace(manifest, archives=(replace(manifest.archives[0], version_id=version["VersionId"]),))
        world.bucket.write(world.recent + "manifest.json", manifest.to_json(), once=False)
    if damage == "lost":
        world.bucket.remove(archive)
    else:
        world.bucket.write(archive, "" if damage == "emptied" else "evil", once=False)
    world.verification(world.recent, ok=True)
    world.age(world.recent, RECENT)

    _, result = run(world)

    assert states(result)[world.expired] != "deleted"
    assert len(world.objects(world.expired)) == 2


def test_a_swept_set_can_be_brought_back_by_removing_its_delete_markers(world):
    run(world)
    listed = world.bucket.client.list_object_versions(Bucket="backups", Prefix=world.expired)
    for marker in listed["DeleteMarkers"]:
        world.bucket.client.delete_object(Bucket="backups", Key=marker["Key"], VersionId=marker["VersionId"])

    assert len(world.objects(world.expired)) == 2


def test_the_manifest_goes_first_so_that_half_a_set_is_no_backup(world, monkeypatch):
    removed = []

    def remove(key):
        removed.append(key)
        raise throttled("DeleteObject")

    monkeypatch.setattr(world.bucket, "remove", remove)
    _, result = run(world)

    assert removed[0] == world.expired + "manifest.json"
    assert states(result)[world.expired] == "failed"


def test_the_creation_records_of_what_is_gone_are_closed(world):
    run(world)

    assert world.ledger.get("cluster-snapshot", OWNER, "aged") is None
    assert world.ledger.get("set", OWNER, world.expired) is None
    assert world.ledger.get("set", OWNER, world.recent) is not None


def test_everything_is_recorded(world):
    key, plan = world.sweeper.plan(execution="run-1", now=NOW)
    result = world.sweeper.act(key)

    assert key == f"{folder(OWNER)}2026-11-23-run-1/plan.json"
    assert world.bucket.read_json(key) == json.loads(json.dumps(plan))
    assert world.bucket.read_json(key.replace("plan", "result")) == result
    assert (result["mode"], result["planned"], result["refused"]) == ("enforce", 2, [])
    assert all(o["reason"].startswith("expired 2026-") for o in result["outcomes"])


def test_a_replay_repeats_the_first_plan_and_deletes_nothing_twice(world):
    key, plan = world.sweeper.plan(execution="run-1", now=NOW)
    world.sweeper.act(key)
    world.snapshot("newly-expired", 300)
    again, same = world.sweeper.plan(execution="run-1", now=NOW)
    result = world.sweeper.act(again)

    assert (again, same) == (key, json.loads(json.dumps(plan)))
    assert set(states(result).values()) == {"deleted"}  # as the first try recorded, and not "gone"
    assert world.rds_client.deleted == ["aged"]


def test_what_was_deleted_before_a_crash_is_on_record_and_stays_there(world, monkeypatch):
    world.snapshot("other", 300)
    key, _ = world.sweeper.plan(execution="run-1", now=NOW)
    describe = world.rds_client.describe_db_cluster_snapshots

    def killed(**query):
        if query.get("DBClusterSnapshotIdentifier") == "aged":
            raise KeyboardInterrupt
        return describe(**query)

    with monkeypatch.context() as patch:
        patch.setattr(world.rds_client, "describe_db_cluster_snapshots", killed)
        with pytest.raises(KeyboardInterrupt):
            world.sweeper.act(key)
    with monkeypatch.context() as patch:  # the second try does not come so far
        patch.setattr(world.ledger, "get", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.sweeper.act(key)
    recorded = world.bucket.read_json(key.replace("plan.json", "result.json"))
    assert set(states(recorded).values()) == {"deleted"}
    assert len(states(recorded)) == 2

    result = world.sweeper.act(key)
    assert len(states(result)) == 3
    assert set(states(result).values()) == {"deleted"}
    assert {o["identifier"]: o["reason"] for o in recorded["outcomes"]}.items() <= {
        o["identifier"]: o["reason"] for o in result["outcomes"]
    }.items()


def test_what_somebody_else_deleted_is_gone_and_not_claimed(world):
    key, _ = world.sweeper.plan(execution="run-1", now=NOW)
    del world.rds_client.snapshots["aged"]

    assert states(world.sweeper.act(key)) == {world.aged: "gone", world.expired: "deleted"}


def test_running_twice_changes_nothing(world):
    run(world)
    plan, result = run(world, execution="run-2")

    assert result["outcomes"] == []
    assert [f["rule"] for f in plan["findings"] if f["rule"] == "vanished"] == []


# --- Nothing is deleted without two yeses


def test_report_mode_deletes_nothing_and_says_what_it_would(world):
    world.policy = world.policy.with_changes({"sweep": {"enforce": False}})
    plan, result = run(world)

    assert (plan["mode"], result["planned"], result["outcomes"]) == ("report", 2, [])
    assert world.rds_client.deleted == []


def test_without_the_second_yes_nothing_is_deleted(world):
    world.bucket.remove(confirmation_key(OWNER))
    plan, result = run(world)

    assert (plan["mode"], result["outcomes"]) == ("unconfirmed", [])


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", '{"owner": "Somebody"}'])
def test_a_second_yes_of_somebody_else_does_not_count(world, text):
    world.bucket.write(confirmation_key(OWNER), text, once=False)

    assert run(world)[0]["mode"] == "unconfirmed"


def test_a_yes_needs_a_name_and_a_reason_and_is_written_once(world):
    with pytest.raises(PlanNotActedOn, match="why must be a text"):
        confirm(world.bucket, OWNER, who="me", why=" ", at=NOW)
    confirm(world.bucket, OWNER, who="another", why="later", at=NOW)

    assert world.bucket.read_json(confirmation_key(OWNER))["who"] == WHO["who"]


def test_enforcement_switched_off_after_the_plan_stops_the_act(world):
    key, _ = world.sweeper.plan(execution="run-1", now=NOW)
    world.policy = world.policy.with_changes({"sweep": {"enforce": False}})
    result = world.sweeper.act(key)

    assert (result["mode"], result["outcomes"]) == ("report", [])


def test_a_plan_made_for_report_is_never_acted_on_later(world):
    enforced = world.policy
    world.policy = enforced.with_changes({"sweep": {"enforce": False}})
    key, _ = world.sweeper.plan(execution="run-1", now=NOW)
    world.policy = enforced

    assert world.sweeper.act(key)["outcomes"] == []


# --- What can go wrong between plan and act, and before


def kept(world, result):
    """Why each planned point stayed; it must still be there."""
    found = {o["identifier"]: o["reason"] for o in result["outcomes"] if o["state"] == "kept"}
    there = {s["DBClusterSnapshotArn"] for s in world.rds_client.snapshots.values()}
    assert all(i in there if i.startswith("arn:") else world.objects(i) for i in found)
    return found


def test_a_page_that_fails_deletes_nothing(world):
    world.rds_client.page_size, world.rds_client.fail_page = 1, 2
    plan, result = run(world)

    assert result["outcomes"] == []
    assert plan["refused"][0].startswith("could not be read completely, so nothing is deleted: RDS cluster snapshots")
    assert world.rds_client.deleted == []
    assert len(world.objects(world.expired)) == 2


def test_a_register_of_holds_that_cannot_be_read_deletes_nothing(world):
    world.bucket.write(f"{prefix(OWNER)}damaged.json", "{}", once=True)
    plan, result = run(world)

    assert result["outcomes"] == []
    assert "legal holds: HoldError" in plan["refused"][0]


def test_a_hold_before_the_plan_keeps(world):
    world.keeper.place("Doe", [world.aged, world.expired], at=NOW, **WHO)
    plan, result = run(world)

    assert result["outcomes"] == []
    assert {d["identifier"] for d in plan["decisions"] if d["rule"] == "held"} == {world.aged, world.expired}


def test_a_hold_between_plan_and_act_keeps(world):
    key, _ = world.sweeper.plan(execution="run-1", now=NOW)
    world.keeper.place("Doe", [world.aged, world.expired], at=NOW, **WHO)
    result = world.sweeper.act(key)

    assert set(kept(world, result)) == {world.aged, world.expired}
    assert all(reason.startswith("held: under legal hold: Doe") for reason in kept(world, result).values())
    assert world.rds_client.deleted == []


def test_a_hold_that_only_the_store_knows_keeps(world):
    world.rds_client.snapshots["aged"]["TagList"].append({"Key": tags.LEGAL_HOLD, "Value": "Doe"})
    version = world.bucket.client.list_object_versions(Bucket="backups", Prefix=world.expired)["Versions"][0]
    world.bucket.client.put_object_legal_hold(
        Bucket="backups", Key=version["Key"], VersionId=version["VersionId"], LegalHold={"Status": "ON"}
    )
    plan, result = run(world)

    assert result["outcomes"] == []
    assert {d["identifier"] for d in plan["decisions"] if d["rule"] == "held"} == {world.aged, world.expired}


def test_a_hold_between_two_deletions_keeps_the_second(world):
    """It is placed while the first point is being looked at; the order of the plan is logical, on-demand."""
    other = world.snapshot("other", 300)
    key, _ = world.sweeper.plan(execution="run-1", now=NOW)

    def place(name):
        if name == "other" and not world.keeper.events():
            world.keeper.place("Doe", [world.aged], at=NOW, **WHO)

    world.rds_client.before_describe = place
    result = world.sweeper.act(key)

    assert states(result) == {world.expired: "deleted", other: "deleted", world.aged: "kept"}


def test_forged_tags_delete_nothing(world):
    forged = world.snapshot("forged", 300, recorded=False)
    plan, result = run(world)

    assert forged not in states(result)
    decision = next(d for d in plan["decisions"] if d["identifier"] == forged)
    assert (decision["rule"], decision["reason"]) == ("unrecorded", "not ours: no creation record names it")


def test_a_snapshot_of_another_execution_than_its_record_is_not_ours(world):
    world.rds_client.snapshots["aged"]["TagList"] = tags.tag_list(tags.ours(OWNER, "another-run"))
    _, result = run(world)

    assert kept(world, result)[world.aged] == "unrecorded: not ours: no creation record names it"


def test_a_name_that_was_used_before_its_record_is_not_ours(world):
    world.rds_client.snapshots["aged"]["SnapshotCreateTime"] -= timedelta(days=10)

    assert "unrecorded" in kept(world, run(world)[1])[world.aged]


def test_a_record_without_the_point_it_names_is_not_ours(world):
    world.bucket.write("ledger/cluster-snapshot/Stack%2FBackup/aged.json", "{}", once=False)

    assert "unrecorded" in kept(world, run(world)[1])[world.aged]


def test_a_set_whose_manifest_names_another_owner_is_not_ours(world):
    theirs = world.dump_set(OLD - timedelta(days=7), owner="Other/Backup")

    assert kept(world, run(world)[1])[theirs] == "untagged: not ours: it does not carry our tag"


def test_a_set_with_an_altered_manifest_is_not_touched(world):
    text = world.bucket.read(world.expired + "manifest.json").decode().replace("zstd:3", "zstd:9")
    world.bucket.write(world.expired + "manifest.json", text, once=False)
    world.age(world.expired, OLD)

    assert "untagged" in kept(world, run(world)[1])[world.expired]


def test_a_record_that_declares_a_later_expiry_keeps(world):
    name = "declared"
    arn = world.snapshot(name, 200, recorded=False)
    record = {"kind": "cluster-snapshot", "identifier": name, "owner": OWNER, "execution": f"run-{name}"}
    times = {"created": (NOW - timedelta(days=200)).isoformat(), "expires": (NOW + timedelta(days=5)).isoformat()}
    world.bucket.write(
        "ledger/cluster-snapshot/Stack%2FBackup/declared.json", json.dumps({"schema": 1, **record, **times}), once=True
    )

    assert kept(world, run(world)[1])[arn] == "in-time: kept until 2026-11-28T05:30:00+00:00"


def test_a_new_cluster_of_the_same_name_keeps_its_points(world):
    world.rds_client.snapshots["aged"]["DbClusterResourceId"] = "cluster-NEW"
    plan, result = run(world)

    assert world.aged not in states(result)
    assert next(d for d in plan["decisions"] if d["identifier"] == world.aged)["rule"] == "another-cluster"


def test_a_snapshot_replaced_between_plan_and_act_is_kept(world):
    key, _ = world.sweeper.plan(execution="run-1", now=NOW)
    world.rds_client.snapshots["aged"]["DbClusterResourceId"] = "cluster-NEW"

    assert "another-cluster" in kept(world, world.sweeper.act(key))[world.aged]


def test_points_of_an_earlier_cluster_of_the_lineage_are_swept_with_the_others(world):
    world.rds_client.snapshots["aged"]["DbClusterResourceId"] = "cluster-BEFORE"
    world.lineage = (US, "cluster-BEFORE")

    assert states(run(world)[1])[world.aged] == "deleted"


@pytest.mark.parametrize("skew", [30, 200, 1000, 3653])
def test_a_clock_ahead_deletes_nothing_however_long_sets_are_kept(world, skew):
    world.policy = world.policy.with_changes({"monthly": {"store": "both"}})
    monthly = world.dump_set(RECENT, prefix="compliance-backups")
    plan, result = run(world, now=NOW + timedelta(days=skew))

    assert result["outcomes"] == []
    assert any("is wrong or backups have stopped" in reason for reason in plan["refused"])
    assert world.objects(monthly)
    assert world.objects(world.expired)


def test_a_time_ahead_of_the_clock_needs_an_explicit_yes_in_both_steps(world):
    world.clock, then = NOW - timedelta(days=1), NOW + timedelta(hours=1)
    key, plan = world.sweeper.plan(execution="run-1", now=then)
    assert "is ahead of the clock, 2026-11-22T05:30:00+00:00" in plan["refused"][0]
    assert world.sweeper.act(key)["outcomes"] == []

    key, plan = world.sweeper.plan(execution="run-2", now=then, ahead=True)
    assert (plan["refused"], plan["ahead_of_clock"], plan["clock"]) == ([], True, world.clock.isoformat())
    with pytest.raises(PlanNotActedOn, match=r"plan\.now must not be ahead of the clock, .* got 2026-11-23T06:30"):
        world.sweeper.act(key)
    assert world.rds_client.deleted == []
    assert set(states(world.sweeper.act(key, ahead=True)).values()) == {"deleted"}


def test_a_snapshot_stuck_creating_is_waited_for(world):
    world.rds_client.snapshots["aged"]["Status"] = "creating"
    plan, result = run(world)

    assert world.aged not in states(result)
    assert next(d for d in plan["decisions"] if d["identifier"] == world.aged)["action"] == "wait"


def test_without_a_resource_id_nothing_is_deleted(world):
    world.lineage = ()

    assert run(world)[0]["refused"] == ["the cluster's resource id is not known"]


def test_the_last_good_copy_that_goes_between_plan_and_act_saves_the_expired_one(world):
    key, _ = world.sweeper.plan(execution="run-1", now=NOW)
    world.bucket.remove(world.recent + "manifest.json")
    result = world.sweeper.act(key)

    assert kept(world, result) == {
        world.expired: "minimum: expired 2026-11-13T05:30:00+00:00, but one of the last 1 good copies"
    }


def fail_reading(world, monkeypatch, part):
    """S3 answers every reading of such a key with SlowDown."""
    read = world.bucket.client.get_object

    def get_object(**query):
        if part in query["Key"]:
            raise throttled("GetObject")
        return read(**query)

    monkeypatch.setattr(world.bucket.client, "get_object", get_object)


def test_a_verification_record_that_s3_does_not_give_makes_no_copy_good(world, monkeypatch):
    older = world.dump_set(OLD - timedelta(days=7))
    world.snapshot("fresh", 1)  # backups are running
    world.verification(world.recent, ok=False)
    key, plan = world.sweeper.plan(execution="run-1", now=NOW)
    assert older in {d["identifier"] for d in plan["decisions"] if d["action"] == "delete"}
    fail_reading(world, monkeypatch, "verification.json")

    assert states(world.sweeper.act(key)) == {older: "failed", world.aged: "deleted"}
    refused = world.sweeper.plan(execution="run-2", now=NOW)[1]["refused"]
    assert refused[0].startswith("could not be read completely, so nothing is deleted: dump sets: S3Failed")
    assert len(world.objects(older)) == 2


def test_the_last_good_copy_that_fails_verification_saves_the_expired_one(world):
    key, _ = world.sweeper.plan(execution="run-1", now=NOW)
    world.verification(world.recent, ok=False)

    assert "minimum" in kept(world, world.sweeper.act(key))[world.expired]


def test_a_deletion_that_answers_yes_and_deletes_nothing_is_a_failure(world):
    world.rds_client.deletes_nothing = True
    _, result = run(world)

    outcome = next(o for o in result["outcomes"] if o["identifier"] == world.aged)
    assert (outcome["state"], outcome["reason"]) == ("failed", "RDS took the deletion, and still shows it available")
    assert world.ledger.get("cluster-snapshot", OWNER, "aged") is not None


def test_one_deletion_that_fails_does_not_keep_the_others(world, monkeypatch):
    monkeypatch.setattr(world.bucket, "remove", lambda key: (_ for _ in ()).throw(throttled("DeleteObject")))
    _, result = run(world)

    assert states(result) == {world.expired: "failed", world.aged: "failed"}
    assert world.rds_client.deleted == ["aged"]


# --- Whose plan it is


def test_a_plan_of_somebody_else_is_not_acted_on(world):
    key, plan = world.sweeper.plan(execution="run-1", now=NOW)
    with pytest.raises(PlanNotActedOn, match="plan must be under"):
        world.sweeper.act(key.replace("Backup/2", "Other/2"))
    world.bucket.write(key, json.dumps({**plan, "owner": "Other"}), once=False)
    with pytest.raises(PlanNotActedOn, match=r"plan.owner must be 'Stack/Backup', got 'Other'"):
        world.sweeper.act(key)
    world.bucket.write(key, json.dumps({**plan, "schema": 2}), once=False)
    with pytest.raises(PlanNotActedOn, match=r"plan.schema must be 1"):
        world.sweeper.act(key)
    world.bucket.remove(key)
    with pytest.raises(PlanNotActedOn, match=r"plan.schema must be 1"):
        world.sweeper.act(key)


def test_a_plan_swollen_after_it_was_made_is_not_acted_on(world):
    key, plan = world.sweeper.plan(execution="run-1", now=NOW)
    swollen = [{**d, "action": "delete"} for d in plan["decisions"]] * 20
    world.bucket.write(key, json.dumps({**plan, "decisions": swollen}), once=False)

    with pytest.raises(PlanNotActedOn, match=r"sweep.max_deletions is 20, got 80"):
        world.sweeper.act(key)


def test_a_plan_that_was_made_to_delete_what_is_in_time_deletes_nothing(world):
    key, plan = world.sweeper.plan(execution="run-1", now=NOW)
    world.bucket.write(
        key, json.dumps({**plan, "decisions": [{**d, "action": "delete"} for d in plan["decisions"]]}), once=False
    )
    result = world.sweeper.act(key)

    assert states(result) == {
        world.expired: "deleted",
        world.aged: "deleted",
        world.recent: "kept",
        world.young: "kept",
    }


# --- What S3 would expire


def test_the_last_good_set_is_held_before_s3_expires_it_also_in_report_mode(world):
    world.policy = world.policy.with_changes({"sweep": {"enforce": False}})
    now = RECENT + timedelta(days=46)
    plan, result = run(world, now=now)

    assert plan["guard"] == [world.recent]
    assert [(o["identifier"], o["state"]) for o in result["guarded"]] == [(world.recent, "held")]
    assert world.keeper.held_in_s3(world.recent)
    assert world.keeper.holds()[0].matter == GUARD_MATTER
    again, _ = run(world, now=now, execution="run-2")
    assert again["guard"] == [world.recent]
    assert len(world.keeper.events()) == 1


def test_a_guard_that_its_store_did_not_take_is_told_every_day_until_the_store_takes_it(world, monkeypatch):
    now = RECENT + timedelta(days=46)
    with monkeypatch.context() as patch:
        patch.setattr(world.bucket.client, "put_object_legal_hold", lambda **_: (_ for _ in ()).throw(throttled("Put")))
        assert states_of_guards(run(world, now=now)) == ["failed"]
        plan, result = run(world, now=now, execution="run-2")
        assert states_of_guards((plan, result)) == ["failed"]
        assert drift(plan) == [world.recent]
    assert not world.keeper.held_in_s3(world.recent)

    assert states_of_guards(run(world, now=now, execution="run-3")) == ["held"]
    assert world.keeper.held_in_s3(world.recent)
    assert drift(run(world, now=now, execution="run-4")[0]) == []


def states_of_guards(ran):
    return [o["state"] for o in ran[1]["guarded"]]


def drift(plan):
    return [f["subject"] for f in plan["findings"] if f["rule"] == "hold-drift"]


def test_one_set_that_cannot_be_held_does_not_keep_the_others_from_it(world):
    gone = world.dump_set(RECENT, database="billing")
    key, plan = world.sweeper.plan(execution="run-1", now=RECENT + timedelta(days=46))
    assert set(plan["guard"]) == {gone, world.recent}
    listed = world.bucket.client.list_object_versions(Bucket="backups", Prefix=gone)["Versions"]
    for version in listed:
        world.bucket.client.delete_object(Bucket="backups", Key=version["Key"], VersionId=version["VersionId"])

    assert {o["identifier"]: o["state"] for o in world.sweeper.act(key)["guarded"]} == {
        gone: "failed",
        world.recent: "held",
    }


def test_the_register_s_times_are_never_ahead_of_the_clock(world):
    world.clock = NOW
    key, _ = world.sweeper.plan(execution="run-1", now=NOW + timedelta(days=46), ahead=True)
    world.sweeper.act(key, ahead=True)

    assert [hold.since for hold in world.keeper.holds()] == [NOW]


def test_a_hold_that_the_store_lost_is_found(world):
    world.keeper.place("Doe", [world.young, world.recent], at=NOW, **WHO)
    assert drift(run(world)[0]) == []
    world.rds_client.snapshots["young"]["TagList"] = []
    version = world.bucket.client.list_object_versions(Bucket="backups", Prefix=world.recent)["Versions"][0]
    world.bucket.client.put_object_legal_hold(
        Bucket="backups", Key=version["Key"], VersionId=version["VersionId"], LegalHold={"Status": "OFF"}
    )

    assert set(drift(run(world, execution="run-2")[0])) == {world.young, world.recent}


def released(world, now):
    return [(a.point, a.ok, a.detail) for a in world.sweeper.release_guards([world.recent, "stranger"], now=now)]


def test_a_guard_is_released_only_after_the_set_that_replaces_it_was_looked_at_again(world):
    now = RECENT + timedelta(days=46)
    run(world, now=now)
    kept = [(world.recent, True, "stays held: no newer set is there and good")]
    assert released(world, now) == kept
    newer = world.dump_set(now - timedelta(days=1))
    world.verification(newer, ok=False)
    assert released(world, now) == kept
    world.verification(newer, ok=True)
    world.bucket.remove(newer + "manifest.json")
    assert released(world, now) == kept
    assert world.keeper.held_in_s3(world.recent)

    newest = world.dump_set(now - timedelta(hours=1))
    for name in world.objects(world.recent):  # S3's lifecycle came meanwhile
        world.bucket.remove(name)
    assert [(point, ok) for point, ok, _ in released(world, now + timedelta(days=1))] == [(world.recent, True)]
    assert not world.keeper.held_in_s3(world.recent)
    assert world.objects(newest)
    assert released(world, now + timedelta(days=1)) == []


def test_a_guard_that_a_newer_set_replaces_is_named(world):
    now = RECENT + timedelta(days=46)
    run(world, now=now)
    world.dump_set(now - timedelta(days=1))

    assert run(world, now=now, execution="run-2")[0]["unguard"] == [world.recent]


def test_an_incomplete_inventory_holds_nothing_by_mistake(world):
    world.rds_client.fail_page = 1
    _, result = run(world, now=RECENT + timedelta(days=46))

    assert result["guarded"] == []


# --- What went by itself


def test_a_point_that_somebody_deleted_too_early_is_found(world):
    run(world)
    del world.rds_client.snapshots["young"]
    plan, _ = run(world, execution="run-2", now=NOW + timedelta(days=1))

    assert [(f["rule"], f["subject"]) for f in plan["findings"] if f["rule"] == "vanished"] == [
        ("vanished", world.young)
    ]


def test_what_could_not_be_listed_has_not_vanished(world):
    run(world)
    world.rds_client.fail_page = world.rds_client.pages + 1
    plan, _ = run(world, execution="run-2")

    assert plan["unknown"]
    assert not [f for f in plan["findings"] if f["rule"] == "vanished"]
    assert (plan["costs"]["tiers"], plan["costs"]["problem"]) == ([], "not everything could be read")


def test_the_comparison_goes_back_to_the_last_complete_inventory(world):
    run(world)
    world.rds_client.fail_page = world.rds_client.pages + 1
    run(world, execution="run-2")
    del world.rds_client.snapshots["young"]
    plan, _ = run(world, execution="run-3")

    assert [f["subject"] for f in plan["findings"] if f["rule"] == "vanished"] == [world.young]


@pytest.mark.parametrize("part", ["latest.json", "plan.json", "result.json"])
def test_a_history_that_cannot_be_read_is_a_finding_and_is_compared_with_later(world, monkeypatch, part):
    run(world)
    del world.rds_client.snapshots["young"]
    with monkeypatch.context() as patch:
        fail_reading(world, patch, f"-run-1/{part}" if part != "latest.json" else part)
        plan = world.sweeper.plan(execution="run-2", now=NOW + timedelta(days=1))[1]
    found = {f["rule"]: f["message"] for f in plan["findings"]}
    assert "so nobody knows what has vanished since: S3Failed" in found["not-compared"]
    assert world.bucket.read_json(f"{folder(OWNER)}latest.json")["plan"].endswith("-run-1/plan.json")

    plan, _ = run(world, execution="run-3", now=NOW + timedelta(days=2))
    assert [f["subject"] for f in plan["findings"] if f["rule"] in {"vanished", "not-compared"}] == [world.young]


def test_a_history_of_another_shape_is_a_finding(world):
    world.bucket.write(f"{folder(OWNER)}latest.json", '{"plan": "nowhere"}', once=True)

    assert "not-compared" in {f["rule"] for f in run(world)[0]["findings"]}


def test_metrics_facts_are_in_the_plan(world):
    plan, _ = run(world)
    logical = next(t for t in plan["tiers"] if t["tier"] == "logical")

    assert (logical["good"], logical["newest_age_seconds"], logical["series"]) == (2, 86400.0, "clinic")
