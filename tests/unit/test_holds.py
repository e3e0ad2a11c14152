"""Legal holds: the register, and each store made to refuse by itself."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aurora_backup import tags
from aurora_backup.holds import (
    HoldError,
    HoldEvent,
    HoldRefused,
    aws_backup_holds,
    by_point,
    hold_in_aws_backup,
    in_force,
    prefix,
    release_in_aws_backup,
)
from aurora_backup.policy import RetentionPolicy
from aurora_backup.sweep import confirmation_key
from tests.unit.retention_world import ARN, NOW, OWNER, US, BackupClient, make_world, throttled

STARTED = datetime(2026, 11, 21, 2, tzinfo=UTC)
WHO = {"who": "counsel@example.org", "why": "preservation letter"}


@pytest.fixture
def world():
    with make_world() as made:
        yield made


def event(matter="Doe", action="placed", minutes=0, points=("a",)):
    return HoldEvent(
        matter=matter, action=action, at=NOW + timedelta(minutes=minutes), owner=OWNER, points=points, **WHO
    )


def held(*events):
    return by_point(in_force(events))


def test_what_was_placed_is_in_force_until_it_is_released():
    assert held(event()) == {"a": ("Doe",)}
    assert held(event(), event(action="released", minutes=1)) == {}
    assert held(event(), event(action="released", minutes=1), event(minutes=2)) == {"a": ("Doe",)}


def test_the_order_of_reading_does_not_matter():
    events = [event(), event(action="released", minutes=1), event(minutes=2, points=("b",))]

    assert in_force(events) == in_force(reversed(events))


def test_a_release_of_some_points_leaves_the_others():
    assert held(event(points=("a", "b")), event(action="released", minutes=1, points=("a",))) == {"b": ("Doe",)}
    assert held(event(points=("a", "b")), event(action="released", minutes=1, points=())) == {}


def test_each_matter_holds_on_its_own():
    both = [event(), event("Roe")]

    assert held(*both) == {"a": ("Doe", "Roe")}
    assert held(*both, event(action="released", minutes=1)) == {"a": ("Roe",)}


def test_a_placing_at_the_instant_of_a_release_keeps():
    assert held(event(), event(action="released", minutes=1), event(minutes=1)) == {"a": ("Doe",)}


def test_a_hold_says_who_placed_it_first_and_why():
    (hold,) = in_force([event(), event(minutes=5, points=("b",))])

    assert (hold.since, hold.who, hold.why, hold.points) == (NOW, WHO["who"], WHO["why"], ("a", "b"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matter": ""}, "matter must be a text"),
        ({"matter": "Doe; drop"}, "matter must be at most 80 letters"),
        ({"matter": "x" * 81}, "matter must be at most 80"),
        ({"who": " "}, "who must be a text"),
        ({"why": ""}, "why must be a text"),
        ({"action": "forgotten"}, "action must be placed or released, got 'forgotten'"),
        ({"points": ()}, "points must name at least one"),
    ],
)
def test_a_malformed_hold_is_refused_by_field(changes, message):
    with pytest.raises(HoldRefused, match=message):
        replace(event(), **changes)


def test_an_event_is_read_as_it_was_written():
    assert HoldEvent.from_json(event().to_json()) == event()
    assert event().key.startswith(f"{prefix(OWNER)}20261123T053000.000000Z-")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', event().to_json().replace("placed", "lost")])
def test_an_event_that_cannot_be_read_is_an_error_and_never_ignored(text):
    with pytest.raises(HoldError):
        HoldEvent.from_json(text)


def test_an_unreadable_register_holds_everything_by_failing(world):
    world.bucket.write(f"{prefix(OWNER)}zzz.json", "{}", once=True)

    with pytest.raises(HoldError):
        world.keeper.holds()


# --- Placing and releasing


def labels(world, name):
    return tags.tags_of(world.rds_client.snapshots[name])


def test_a_snapshot_is_held_by_register_and_tag(world):
    arn = world.snapshot("one", 5)
    (done,) = world.keeper.place("Doe", [arn], at=NOW, **WHO)

    assert (done.ok, done.detail) == (True, "tag aurora-backup:legal-hold set")
    assert labels(world, "one")[tags.LEGAL_HOLD] == "Doe"
    assert by_point(world.keeper.holds()) == {arn: ("Doe",)}


def test_a_set_is_held_in_every_version_of_every_object(world):
    key = world.dump_set(STARTED)
    world.verification(key, ok=True)
    world.verification(key, ok=True)
    assert not world.keeper.held_in_s3(key)
    (done,) = world.keeper.place("Doe", [key], at=NOW, **WHO)

    assert (done.ok, done.detail) == (True, "Object Lock legal hold ON on 4 versions")
    assert world.keeper.held_in_s3(key)
    versions = world.bucket.client.list_object_versions(Bucket="backups", Prefix=key)["Versions"]
    for version in versions:
        with pytest.raises(world.bucket.client.exceptions.ClientError, match="AccessDenied"):
            world.bucket.client.delete_object(Bucket="backups", Key=version["Key"], VersionId=version["VersionId"])


def test_a_set_behind_delete_markers_can_still_be_held(world):
    key = world.dump_set(STARTED)
    for name in world.objects(key):
        world.bucket.remove(name)

    assert world.keeper.place("Doe", [key], at=NOW, **WHO)[0].ok
    assert world.keeper.held_in_s3(key)


def test_in_a_bucket_without_object_lock_the_register_holds_and_the_failure_is_told():
    with make_world(object_lock=False) as world:
        key = world.dump_set(STARTED)
        (done,) = world.keeper.place("Doe", [key], at=NOW, **WHO)

        assert not done.ok
        assert "PutObjectLegalHold" in done.detail
        assert by_point(world.keeper.holds()) == {key: ("Doe",)}
        assert not world.keeper.held_in_s3(key)


def test_a_set_has_one_name_however_it_is_written(world):
    key = world.dump_set(STARTED)
    for name, matter in ((key.rstrip("/"), "Doe"), ("/" + key, "Roe")):
        world.keeper.place(matter, [name], at=NOW, **WHO)
    assert by_point(world.keeper.holds()) == {key: ("Doe", "Roe")}
    world.keeper.release("Doe", [key.rstrip("/")], at=NOW + timedelta(days=1), **WHO)

    assert by_point(world.keeper.holds()) == {key: ("Roe",)}
    assert world.keeper.held_in_s3(key)


def test_an_entry_of_the_register_is_read_by_its_one_name_and_what_names_no_set_holds_all_below_it(world):
    key, other = world.dump_set(STARTED), world.dump_set(STARTED, database="billing")
    text = event(points=("a",)).to_json()
    for n, point in enumerate((key.rstrip("/"), "logical-backups")):
        matter = text.replace('"a"', f'"{point}"').replace("Doe", f"M{n}")
        world.bucket.write(f"{prefix(OWNER)}2020-{n}.json", matter, once=True)
    holds = world.keeper.holds()
    assert {hold.points for hold in holds} == {(key,), ("logical-backups",)}
    held_now = by_point(holds, [key, other, "compliance-backups/x/"])
    assert held_now == {"logical-backups": ("M1",), key: ("M0", "M1"), other: ("M1",)}

    world.keeper.place("Roe", [other], at=NOW, **WHO)
    (done,) = world.keeper.release("M1", at=NOW + timedelta(days=1), **WHO)
    assert (done.ok, done.detail) == (
        True,
        "released in the register; place and release what is below it by name",
    )
    assert world.keeper.held_in_s3(other)


def test_a_placing_that_an_earlier_release_undoes_is_refused_and_holds_nothing_by_name_only(world):
    arn, key = world.snapshot("one", 5), world.dump_set(STARTED)
    world.keeper.place("Doe", [arn, key], at=NOW, **WHO)
    world.keeper.release("Doe", at=NOW + timedelta(days=2), **WHO)
    with pytest.raises(HoldRefused, match=rf"at must be after the last release of .* by 'Doe', got {NOW:%Y}-"):
        world.keeper.place("Doe", [arn, key], at=NOW + timedelta(days=1), **WHO)
    assert len(world.keeper.events()) == 2

    assert all(done.ok for done in world.keeper.place("Doe", [arn, key], at=NOW + timedelta(days=3), **WHO))


def test_a_release_that_a_later_placing_undoes_is_refused_and_the_store_still_holds(world):
    key = world.dump_set(STARTED)
    world.keeper.place("Doe", [key], at=NOW, **WHO)
    with pytest.raises(HoldRefused, match=r"at must be after the placing of .* by 'Doe'"):
        world.keeper.release("Doe", at=NOW, **WHO)

    assert world.keeper.held_in_s3(key)


@pytest.mark.parametrize("when", ["before the tag", "after the tag"])
@pytest.mark.parametrize("state", ["gone", "deleting"])
def test_a_snapshot_that_goes_while_it_is_being_held_is_told(world, monkeypatch, when, state):
    arn = world.snapshot("one", 5)
    snapshots = world.rds_client.snapshots

    def go():
        if state == "gone":
            snapshots.pop("one", None)
        else:
            snapshots["one"]["Status"] = "deleting"

    def write(*_, **__):
        if when == "before the tag":
            go()

    tag = world.rds_client.add_tags_to_resource
    monkeypatch.setattr(
        world.bucket, "write", lambda *a, original=world.bucket.write, **k: (original(*a, **k), write())
    )
    monkeypatch.setattr(world.rds_client, "add_tags_to_resource", lambda **k: (tag(**k), go()))
    (done,) = world.keeper.place("Doe", [arn], at=NOW, **WHO)

    assert not done.ok
    assert by_point(world.keeper.holds()) == {arn: ("Doe",)}


def test_a_set_that_goes_while_it_is_being_held_is_told(world, monkeypatch):
    key = world.dump_set(STARTED)
    there = [["a version"], []]
    monkeypatch.setattr(world.keeper, "_versions", lambda _: there.pop(0))
    (done,) = world.keeper.place("Doe", [key], at=NOW, **WHO)

    assert (done.ok, done.detail) == (False, "HoldError: the set is gone")


def test_the_release_of_what_is_gone_is_a_release(world):
    arn = world.snapshot("one", 5)
    world.keeper.place("Doe", [arn], at=NOW, **WHO)
    del world.rds_client.snapshots["one"]

    assert world.keeper.release("Doe", at=NOW + timedelta(days=1), **WHO)[0].ok


def test_no_lifecycle_rule_reaches_the_register_nor_the_second_yes():
    for name in ("hipaa", "dev"):
        rules = getattr(RetentionPolicy, name)().lifecycle_rules()
        for key in (prefix(OWNER), confirmation_key(OWNER)):
            assert not [rule.prefix for rule in rules if key.startswith(rule.prefix)]


def test_a_repetition_changes_nothing(world):
    arn = world.snapshot("one", 5)
    for _ in range(2):
        world.keeper.place("Doe", [arn], at=NOW, **WHO)

    assert len(world.keeper.events()) == 1


def test_a_released_snapshot_loses_its_tag_and_the_release_stays_as_evidence(world):
    arn = world.snapshot("one", 5)
    world.keeper.place("Doe", [arn], at=NOW, **WHO)
    (done,) = world.keeper.release("Doe", at=NOW + timedelta(days=1), **WHO)

    assert done.ok
    assert tags.LEGAL_HOLD not in labels(world, "one")
    assert world.keeper.holds() == ()
    assert [e.action for e in world.keeper.events()] == ["placed", "released"]


def test_a_point_of_two_matters_stays_held_when_one_is_released(world):
    arn, key = world.snapshot("one", 5), world.dump_set(STARTED)
    world.keeper.place("Doe", [arn, key], at=NOW, **WHO)
    world.keeper.place("Roe", [arn, key], at=NOW + timedelta(minutes=1), **WHO)
    assert labels(world, "one")[tags.LEGAL_HOLD] == "Doe + Roe"
    world.keeper.release("Doe", at=NOW + timedelta(days=1), **WHO)

    assert labels(world, "one")[tags.LEGAL_HOLD] == "Roe"
    assert world.keeper.held_in_s3(key)
    world.keeper.release("Roe", at=NOW + timedelta(days=2), **WHO)
    assert tags.LEGAL_HOLD not in labels(world, "one")
    assert not world.keeper.held_in_s3(key)


def test_a_release_that_a_store_did_not_follow_is_not_registered(world, monkeypatch):
    arn = world.snapshot("one", 5)
    world.keeper.place("Doe", [arn], at=NOW, **WHO)

    def fail(**_):
        raise throttled("RemoveTagsFromResource")

    monkeypatch.setattr(world.rds_client, "remove_tags_from_resource", fail)
    (done,) = world.keeper.release("Doe", at=NOW + timedelta(days=1), **WHO)

    assert not done.ok
    assert by_point(world.keeper.holds()) == {arn: ("Doe",)}


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (ARN + "nowhere", "points must exist, and arn:.*nowhere does not"),
        (f"logical-backups/{US}/clinic/20200101T000000Z/", "points must exist"),
        (ARN + "awsbackup:job-1", "AWS Backup's, which holds by vault"),
        (ARN + "rds:clinic-2026-11-23", "automated and expires with its cluster"),
        ("arn:aws:rds:eu-west-1:111122223333:cluster:clinic", "must be cluster snapshots or dump sets"),
        ("/logical-backups/x/", "whole keys of sets"),
        ("logical-backups", "whole keys of sets"),
        (f"logical-backups/{US}/clinic/", "whole keys of sets"),
        (f"ledger/set/{US}/clinic/20261121T020000Z/", "whole keys of sets"),
        (ARN.replace("eu-west-1", "us-east-1") + "one", "points must exist"),
        (ARN.replace("111122223333", "444455556666") + "one", "points must exist"),
    ],
)
def test_what_cannot_be_held_is_refused_and_nothing_is_registered(world, point, message):
    arn = world.snapshot("one", 5)

    with pytest.raises(HoldRefused, match=message):
        world.keeper.place("Doe", [arn, point], at=NOW, **WHO)
    assert world.keeper.events() == ()
    assert tags.LEGAL_HOLD not in labels(world, "one")


def test_only_what_is_in_force_can_be_released(world):
    arn = world.snapshot("one", 5)
    world.keeper.place("Doe", [arn], at=NOW, **WHO)

    with pytest.raises(HoldRefused, match="matter must be in force to be released, and 'Roe' is not"):
        world.keeper.release("Roe", at=NOW, **WHO)
    with pytest.raises(HoldRefused, match="points must be held by 'Doe', and other is not"):
        world.keeper.release("Doe", ["other"], at=NOW, **WHO)


# --- AWS Backup


def test_aws_backup_holds_by_vault_resource_and_time():
    client = BackupClient()
    arguments = {"matter": "Doe", "why": "letter", "vaults": ["v"], "resources": ["arn:r"], "since": STARTED, "to": NOW}
    hold = hold_in_aws_backup(client, **arguments)
    hold_in_aws_backup(client, **arguments)

    first, second = client.holds
    assert first["RecoveryPointSelection"] == {
        "VaultNames": ["v"],
        "ResourceIdentifiers": ["arn:r"],
        "DateRange": {"FromDate": STARTED, "ToDate": NOW},
    }
    assert first["IdempotencyToken"] == second["IdempotencyToken"]
    assert aws_backup_holds(client)[0] == {"id": hold, "title": "Doe", "status": "ACTIVE", "description": "letter"}
    release_in_aws_backup(client, hold, why="settled")
    assert client.cancelled == [{"LegalHoldId": hold, "CancelDescription": "settled"}]


def test_a_hold_in_aws_backup_needs_a_time_that_runs_forward():
    with pytest.raises(HoldRefused, match="since must not be after to"):
        hold_in_aws_backup(BackupClient(), matter="D", why="w", vaults=[], resources=[], since=NOW, to=STARTED)
