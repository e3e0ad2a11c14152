"""The evidence chain: any changed byte, any moved, missing or added record is found, also without AWS."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_backup import evidence_cli
from aurora_backup.errors import SettingsError
from aurora_backup.evidence import (
    ROOT,
    EvidenceError,
    Lock,
    Record,
    Rules,
    chain_key,
    chain_prefix,
    is_document,
    sha256,
    successor,
    verify,
)
from aurora_backup.evidence_store import ChainBroken, EvidenceNotWritten, EvidenceStore, read_directory
from aurora_backup.handlers import report_compliance
from aurora_backup.policy import Keep, RetentionPolicy

OWNER = "Stack/Backup"
START = datetime(2026, 11, 1, 5, tzinfo=UTC)
KEEP = Keep.for_years(6)
COUNT = 6
KEY = "arn:aws:kms:eu-west-1:111122223333:key/backup"


def named(documents):
    return [{"key": key, "sha256": sha256(data), "bytes": len(data)} for key, data in documents.items()]


def build(count=COUNT, owner=OWNER):
    """A chain of daily reports: bytes by key with the documents beside it, and the records."""
    objects, records, last = {}, [], None
    quoted = owner.replace("/", "%2F")
    for n in range(count):
        attachments = {"report.json": f'{{"n": {n}}}'.encode(), "report.html": b"<p>" + bytes([65 + n]) + b"</p>"}
        beside = {f"{ROOT}retention/{quoted}/{n}/plan.json": b"plan %d" % n}
        beside |= {f"registers/holds/{quoted}/{n}.json": b"hold"} if n == 2 else {}
        beside |= {f"{ROOT}recovery-tests/weekly/{n}.json": b"test"} if n % 2 else {}
        objects |= beside
        record = successor(
            last,
            kind="compliance-report",
            owner=owner,
            execution=f"run-{n}",
            created=START + timedelta(days=n),
            body={"compliance_status": "PASS", "documents": named(beside)},
            attachments=attachments,
        )
        last = record.to_bytes()
        objects[record.key] = last
        objects |= {a.key: attachments[a.name] for a in record.attachments}
        records.append(record)
    return objects, records


CHAIN, RECORDS = build()
TOTAL = sum(map(len, CHAIN.values()))


def problems(objects, **rules):
    return verify(objects, OWNER, Rules(**rules)).problems


def test_a_whole_chain_has_no_problem():
    outcome = verify(CHAIN, OWNER)
    assert outcome.problems == ()
    assert (outcome.records, outcome.attachments) == (COUNT, 2 * COUNT)
    assert (outcome.documents, outcome.unrecorded) == (COUNT + COUNT // 2 + 1, 0)
    assert outcome.head == sha256(RECORDS[-1].to_bytes())
    assert (outcome.first, outcome.last) == (START, START + timedelta(days=COUNT - 1))


@settings(max_examples=400, deadline=None)
@given(position=st.integers(0, TOTAL - 1), change=st.integers(1, 255))
def test_any_changed_byte_of_any_stored_object_is_found(position, change):
    for key, data in sorted(CHAIN.items()):
        if position < len(data):
            changed = data[:position] + bytes([data[position] ^ change]) + data[position + 1 :]
            assert problems({**CHAIN, key: changed})
            return
        position -= len(data)
    raise AssertionError("the position must lie in an object")


@settings(max_examples=100, deadline=None)
@given(key=st.sampled_from(sorted(CHAIN)), data=st.data())
def test_any_cut_or_added_bytes_are_found(key, data):
    whole = CHAIN[key]
    cut = data.draw(st.integers(0, len(whole) - 1))
    extra = data.draw(st.binary(min_size=1, max_size=20))
    assert problems({**CHAIN, key: whole[:cut]})
    assert problems({**CHAIN, key: whole + extra})
    assert problems({**CHAIN, key: extra + whole})


@pytest.mark.parametrize("pair", list(itertools.combinations(range(COUNT), 2)))
def test_any_two_records_or_reports_exchanged_are_found(pair):
    first, second = (RECORDS[n] for n in pair)
    assert problems({**CHAIN, first.key: CHAIN[second.key], second.key: CHAIN[first.key]})
    for one, other in zip(first.attachments, second.attachments, strict=True):
        assert problems({**CHAIN, one.key: CHAIN[other.key], other.key: CHAIN[one.key]})


@pytest.mark.parametrize("key", sorted(CHAIN))
def test_a_missing_object_is_found(key):
    objects = {k: v for k, v in CHAIN.items() if k != key}
    if key == RECORDS[-1].key:
        # A chain cannot know that its end was cut off: the published head does, and so does time.
        assert problems(objects, head=sha256(CHAIN[key]))
        later = START + timedelta(days=COUNT)
        assert problems(objects, now=later, longest_gap=timedelta(hours=26), gap_kind="compliance-report")
    else:
        assert problems(objects)


def test_the_first_record_that_names_a_document_stands():
    last = RECORDS[-1].to_bytes()
    key = f"{ROOT}recovery-tests/weekly/1.json"

    def then(documents):
        record = successor(
            last, kind="compliance-report", owner=OWNER, execution="run-6", created=START + timedelta(days=6),
            body={"documents": documents},
        )  # fmt: skip
        return record.key, record.to_bytes()

    again = dict([then(named({key: CHAIN[key]}))])
    assert problems({**CHAIN, **again}) == ()  # named twice as it was
    changed = {**CHAIN, key: b"other"}
    laundered = dict([then(named({key: b"other"}))])
    assert problems({**changed, **laundered}) == (
        f"{key} was written again before record 7",
        f"{key} was altered: its SHA-256 is not the recorded one",
    )
    (says,) = problems({**CHAIN, **dict([then([{"key": key}])])})
    assert "documents must be a list of key, sha256 and bytes" in says


def test_a_document_that_no_record_names_yet_is_counted_and_no_problem():
    new = {"registers/holds/Stack%2FBackup/new.json": b"{}", f"{ROOT}retention/Stack%2FBackup/latest.json": b"{}"}
    outcome = verify({**CHAIN, **new, "registers/holds/other/new.json": b"{}"}, OWNER)
    assert (outcome.unrecorded, outcome.problems) == (1, ())


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("/registers/holds/Stack%2FBackup/x.json", True),
        ("/registers/holds/Stack/x.json", False),
        ("/registers/holds/Stack%2FBackup2/x.json", False),
        ("/registers/confirmations/Stack%2FBackup.json", True),
        ("/registers/confirmations/Stack%2FBackup2.json", False),
        ("holds/Stack%2FBackup/x.json", False),
        ("retention/Stack%2FBackup/2026-11-23-run/result.json", True),
        ("retention/Stack%2FBackup/latest.json", False),
        ("recovery-tests/weekly/x.json", True),
        ("recoveries/x.json", True),
        ("chain/Stack%2FBackup/00000001.json", False),
        ("facts/x.json", False),
    ],
)
def test_documents_are_what_other_workflows_write_once_for_the_owner(name, is_one):
    key = name[1:] if name.startswith("/") else ROOT + name
    assert is_document(key, OWNER) is is_one
    assert not is_document(f"elsewhere/{key}", OWNER)


def test_a_record_rewritten_with_a_fitting_digest_breaks_the_link_after_it():
    data = json.loads(CHAIN[RECORDS[2].key])
    forged = Record(
        sequence=3,
        previous=data["previous"],
        kind="compliance-report",
        owner=OWNER,
        execution="run-2",
        created=RECORDS[2].created,
        body={"compliance_status": "PASS", "forged": True},
        attachments=RECORDS[2].attachments,
    )
    found = problems({**CHAIN, RECORDS[2].key: forged.to_bytes()})
    assert found == ("record 4 does not hold the hash of record 3: one of them was changed",)


def test_a_rewritten_end_is_found_by_the_head_that_was_published():
    head = sha256(CHAIN[RECORDS[-1].key])
    last = RECORDS[-1]
    forged = Record(**{**vars(last), "body": {"compliance_status": "PASS", "forged": True}})
    objects = {**CHAIN, last.key: forged.to_bytes()}
    assert problems(objects) == ()
    assert "the newest record must have the SHA-256" in problems(objects, head=head)[0]


def test_records_of_another_owner_are_another_chain_and_moving_one_is_found():
    other, _ = build(owner="Other")
    assert problems({**CHAIN, **other}) == ()
    moved = {**CHAIN, chain_key(OWNER, COUNT + 1): other[chain_key("Other", 1)]}
    assert "it was moved" in problems(moved)[0]


def test_a_record_has_exactly_the_members_of_its_published_schema():
    path = Path(__file__).parent.parent.parent / "docs" / "schemas" / "evidence-record-1.json"
    schema, record = json.loads(path.read_text()), json.loads(CHAIN[RECORDS[1].key])
    assert set(schema["properties"]) == set(schema["required"]) == set(record)
    wanted = schema["properties"]["attachments"]["items"]["properties"]
    assert set(wanted) == set(record["attachments"][0])
    named_there = schema["properties"]["body"]["properties"]["documents"]["anyOf"][1]["items"]["properties"]
    assert set(named_there) == set(record["body"]["documents"][0])


def test_no_evidence_at_all_is_a_problem():
    assert problems({}) == (f"there is no evidence of {OWNER}",)


def test_a_day_without_a_report_is_a_gap_and_another_kind_does_not_fill_it():
    objects, last = {}, None
    for day, kind in ((0, "compliance-report"), (1, "retention"), (2, "compliance-report")):
        record = successor(last, kind=kind, owner=OWNER, execution=kind, created=START + timedelta(days=day), body={})
        last = record.to_bytes()
        objects[record.key] = last
    rules = {"longest_gap": timedelta(hours=26), "gap_kind": "compliance-report"}
    assert problems(objects, **rules) == ("there is no evidence between 2026-11-01 05:00 UTC and 2026-11-03 05:00 UTC",)
    assert problems(objects, **{**rules, "longest_gap": timedelta(days=2)}) == ()


def locks(**change):
    until = {r.key: KEEP.until(r.created) for r in RECORDS}
    until |= {a.key: KEEP.until(r.created) for r in RECORDS for a in r.attachments}
    good = {"mode": "GOVERNANCE", "encryption": "aws:kms", "key": KEY}
    return {key: Lock(**{**good, "until": moment, **change}) for key, moment in until.items()}


def test_locks_and_versions_are_checked_where_s3_can_be_asked():
    rules = Rules(keep_days=2192)
    assert verify(CHAIN, OWNER, rules, locks()).problems == ()
    assert "it is not locked" in verify(CHAIN, OWNER, rules, locks(mode=None)).problems[0]
    assert "it is locked until" in verify(CHAIN, OWNER, rules, locks(until=START + timedelta(days=30))).problems[0]
    assert "2 versions" in verify(CHAIN, OWNER, rules, locks(versions=2)).problems[0]
    assert "S3 did not say how it is locked" in verify(CHAIN, OWNER, rules, {}).problems[0]


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        ({"encryption": "AES256", "key": None}, None, "it is encrypted by AES256, not under a KMS key"),
        ({"encryption": None, "key": None}, None, "S3 does not say how it is encrypted"),
        ({"key": "arn:other"}, KEY, f"it is under arn:other, not {KEY}"),
        ({"key": None}, KEY, f"it is under a key that S3 does not name, not {KEY}"),
        ({"key": "arn:other"}, None, None),
        ({"encryption": "aws:kms:dsse"}, KEY, None),
    ],
)
def test_a_record_or_attachment_that_is_not_under_a_kms_key_or_the_one_that_was_named_is_a_problem(change, key, says):
    found = verify(CHAIN, OWNER, Rules(key=key), locks(**change)).problems
    keys = {*(r.key for r in RECORDS), *(a.key for r in RECORDS for a in r.attachments)}
    assert set(found) == ({f"{one}: {says}" for one in keys} if says else set())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x00", "not JSON"),
        (b"[]", "exactly the keys"),
        (CHAIN[RECORDS[0].key].replace(b'"schema":1', b'"schema":2'), "use a newer"),
        (CHAIN[RECORDS[0].key].replace(b'"PASS"', b'"FAIL"'), "was altered"),
        (CHAIN[RECORDS[0].key] + b" ", "was altered"),
    ],
)
def test_an_altered_record_is_refused_and_says_why(data, says):
    with pytest.raises(EvidenceError, match=says):
        Record.from_bytes(data)


def test_nothing_is_chained_to_an_altered_record():
    with pytest.raises(EvidenceError):
        successor(CHAIN[RECORDS[0].key] + b" ", kind="x", owner=OWNER, execution="x", created=START, body={})


def test_naive_times_and_wild_names_are_refused():
    with pytest.raises(ValueError, match="timezone-aware"):
        successor(None, kind="x", owner=OWNER, execution="x", created=datetime(2026, 1, 1), body={}).to_bytes()  # noqa: DTZ001
    with pytest.raises(EvidenceError, match="name"):
        successor(None, kind="x", owner=OWNER, execution="x", created=START, body={}, attachments={"../x": b""})


# --- The store -------------------------------------------------------------------------------------------------------


class FakeS3:
    """As much of S3 as the store uses: conditional puts, listings, locks."""

    def __init__(self):
        self.objects, self.locks, self.refuse, self.mutex = {}, {}, None, threading.Lock()
        self.written, self.refused = {}, {}

    def put_object(self, *, Bucket, Key, Body, IfNoneMatch, ChecksumSHA256, **more):  # noqa: N803
        assert (Bucket, IfNoneMatch) == ("backups", "*")
        if self.refuse:
            raise ClientError({"Error": {"Code": self.refuse, "Message": "no"}}, "PutObject")
        with self.mutex:
            if Key in self.objects:
                raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
            self.objects[Key] = Body
            self.locks[Key] = more

    def get_object(self, *, Bucket, Key, **_):  # noqa: N803
        if Key in self.refused:
            raise ClientError({"Error": {"Code": self.refused[Key], "Message": "no"}}, "GetObject")
        return {"Body": io.BytesIO(self.objects[Key]), "ContentLength": len(self.objects[Key])}

    def get_paginator(self, name):
        class Pages:
            @staticmethod
            def paginate(*, Bucket, Prefix):  # noqa: N803
                keys = sorted(k for k in list(self.objects) if k.startswith(Prefix))
                kind = "Contents" if name == "list_objects_v2" else "Versions"
                return [{kind: [{"Key": k, "LastModified": self.written.get(k, START)}]} for k in keys]

        return Pages

    def head_object(self, *, Bucket, Key):  # noqa: N803
        if self.refused.get(Key) == "AccessDenied":
            raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")
        lock = self.locks[Key]
        names = ("ObjectLockMode", "ObjectLockRetainUntilDate", "ServerSideEncryption", "SSEKMSKeyId")
        return {name: lock[name] for name in names if name in lock}


def append(store, n=0, kind="compliance-report"):
    return store.append(
        kind=kind,
        execution=f"run-{n}",
        created=START + timedelta(days=n),
        body={"n": n},
        attachments={"report.json": f"{n}".encode()},
    )


@pytest.fixture
def s3():
    return FakeS3()


@pytest.fixture
def store(s3):
    return EvidenceStore(s3, "backups", OWNER, keep=KEEP, mode="GOVERNANCE", kms_key=KEY)


def test_every_object_is_written_once_locked_for_the_policy_s_years_and_under_the_customer_key(s3, store):
    written = append(store)
    assert set(s3.locks) == {written.record.key, written.record.attachments[0].key}
    for lock in s3.locks.values():
        assert lock["ObjectLockMode"] == "GOVERNANCE"
        assert lock["ObjectLockRetainUntilDate"] == datetime(2032, 11, 1, 5, tzinfo=UTC)
        assert (lock["ServerSideEncryption"], lock["SSEKMSKeyId"]) == ("aws:kms", KEY)
    assert (lock["ObjectLockRetainUntilDate"] - START).days >= 2192


def test_the_lock_is_never_shorter_than_2192_days(s3, store):
    """Six calendar years are 2191 days when only one 29 February is in them."""
    created = datetime(2029, 3, 1, 5, 0, 0, 1, tzinfo=UTC)
    assert (KEEP.until(created) - created).days == 2191
    store.append(kind="x", execution="x", created=created, body={})
    (lock,) = s3.locks.values()
    assert lock["ObjectLockRetainUntilDate"] == datetime(2035, 3, 2, 5, 0, 1, tzinfo=UTC)  # S3 knows whole seconds


def test_documents_are_listed_with_their_hashes_new_ones_and_those_that_were_named(s3, store):
    holds = "registers/holds"
    keys = f"{holds}/Stack%2FBackup/a.json", f"{holds}/other/b.json", f"{ROOT}recoveries/c.json", f"{ROOT}facts/d.json"
    for n, key in enumerate(keys):
        s3.objects[key] = b"%d" % n
        s3.written[key] = START + timedelta(days=n)
    found = {d.key: (d.sha256, d.bytes) for d in store.documents(None)}
    assert found == {keys[0]: (sha256(b"0"), 1), keys[2]: (sha256(b"2"), 1)}
    assert [d.key for d in store.documents(START + timedelta(days=1))] == [f"{ROOT}recoveries/c.json"]
    assert len(store.documents(START + timedelta(days=1), {keys[0], f"{holds}/Stack%2FBackup/gone.json"})) == 2


def test_records_are_chained_and_verify_with_their_locks(s3, store):
    for n in range(3):
        append(store, n)
    objects = store.objects()
    assert verify(objects, OWNER, Rules(keep_days=2192, key=KEY), store.locks(list(objects))).problems == ()
    assert store.newest("compliance-report").sequence == 3
    assert store.newest("other") is None


def test_a_replay_writes_nothing_new(s3, store):
    first = append(store)
    append(store, 1)
    before = dict(s3.objects)
    again = append(store)
    assert (again.record, again.head) == (first.record, first.head)
    assert s3.objects == before


def test_writers_that_meet_make_one_chain(s3, store):
    threads = [threading.Thread(target=append, args=(store, 0, f"kind-{n}")) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcome = verify(store.objects(), OWNER)
    assert (outcome.records, outcome.problems) == (4, ())


def test_evidence_that_cannot_be_written_is_an_error(s3, store):
    s3.refuse = "AccessDenied"
    with pytest.raises(EvidenceNotWritten, match="AccessDenied"):
        append(store)
    s3.refuse = None
    append(store)
    s3.objects[chain_prefix(OWNER) + "00000001.json"] += b" "
    with pytest.raises(EvidenceNotWritten, match="altered"):
        append(store, 1)


def test_nothing_is_chained_to_a_forged_record_even_with_a_digest_of_its_own(s3, store):
    for n in range(3):
        append(store, n)
    key = chain_prefix(OWNER) + "00000002.json"
    honest = s3.objects[key]
    s3.objects[key] = replace(Record.from_bytes(honest), body={"status": "PASS"}).to_bytes()
    with pytest.raises(ChainBroken, match="record 3 does not follow record 2: one was altered"):
        append(store, 3)
    s3.objects[key] = honest
    assert append(store, 3).record.sequence == 4


def test_what_is_archived_or_refused_is_named_and_never_whole(s3, store):
    written = append(store)
    attachment, record = written.record.attachments[0].key, written.record.key
    s3.refused[attachment] = "InvalidObjectState"
    outcome = verify(store.objects(), OWNER)
    assert outcome.problems == (f"{attachment} is archived: restore required (aws s3api restore-object)",)
    s3.refused = {attachment: "AccessDenied"}
    (problem,) = verify(store.objects(), OWNER, Rules(), store.locks([attachment, record])).problems
    assert f"{attachment} could not be read" in problem  # once: its lock is not asked for again
    s3.refused = {record: "AccessDenied"}
    with pytest.raises(EvidenceError, match=r"could not be read: .*AccessDenied"):
        store.last()
    outcome = verify(store.objects(), OWNER)
    assert f"{record} could not be read" in outcome.problems[0]
    assert store.locks([attachment, record]).keys() == {attachment}  # S3 does not describe what it refuses to read
    with pytest.raises(EvidenceNotWritten, match="AccessDenied") as refused:
        append(store, 1)
    assert not isinstance(refused.value, ChainBroken)  # refused is not altered


class Counted(bytes):
    """Bytes that know how many of their kind there are, and the most that there ever were at one time."""

    now, most, made = 0, 0, 0

    def __init__(self, *_):
        Counted.now += 1
        Counted.made += 1
        Counted.most = max(Counted.most, Counted.now)

    def __del__(self):
        Counted.now -= 1


@pytest.fixture
def counted():
    Counted.now = Counted.most = Counted.made = 0
    return Counted


def test_of_the_whole_evidence_in_s3_one_object_is_held_at_a_time(s3, store, counted, monkeypatch):
    s3.objects = dict(CHAIN)

    class Body:
        def __init__(self, data):
            self.read = lambda: Counted(data)

    monkeypatch.setattr(s3, "get_object", lambda *, Bucket, Key: {"Body": Body(CHAIN[Key])})  # noqa: N803
    objects = store.objects()
    assert RECORDS[0].key in objects
    assert (counted.made, len(objects), set(objects)) == (0, len(CHAIN), set(CHAIN))
    assert verify(objects, OWNER).problems == ()
    assert counted.made == len(CHAIN)
    assert counted.most <= 2  # the one before is let go when the next one is there


def test_of_a_copy_on_disk_one_file_is_held_at_a_time(copy_on_disk, counted, monkeypatch):
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: Counted(read(path)))
    objects = read_directory(copy_on_disk)
    assert counted.made == 0
    assert verify(objects, OWNER).problems == ()
    assert (counted.made, counted.most <= 2) == (len(CHAIN), True)


def test_a_file_that_cannot_be_read_is_named_and_never_whole(copy_on_disk, monkeypatch):
    report, record = RECORDS[1].attachments[0].key, RECORDS[3].key
    read = Path.read_bytes

    def refuse(path):
        if path in {copy_on_disk / report, copy_on_disk / record}:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    status, document, _ = command("--directory", copy_on_disk, "--as-of", AS_OF)
    found = document["owners"][OWNER]["problems"]
    assert (status, found[0]) == (1, f"{copy_on_disk / record} could not be read: Permission denied")
    assert f"{copy_on_disk / report} could not be read: Permission denied" in found


def test_a_forged_newest_record_stops_the_chain_and_not_the_report(s3, store, monkeypatch):
    environment = {
        "OWNER": OWNER, "CLUSTER_ID": "clinic", "CLUSTER_RESOURCE_ID": "cluster-A", "BACKUP_BUCKET": "backups",
        "BACKUP_KEY_ARN": "arn:aws:kms:eu-west-1:111122223333:key/k",
        "RETENTION_POLICY": RetentionPolicy.hipaa().to_json(),
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(report_compliance, "make_client", lambda: s3)
    append(store)
    forged = chain_prefix(OWNER) + "00000001.json"
    s3.objects[forged] += b" "
    s3.objects["facts.json"] = json.dumps({"schema": 1, "observations": {}}).encode()
    event = {"execution": "run-9", "started": (START + timedelta(days=9)).isoformat(), "facts": "facts.json"}
    answer = report_compliance.handler(event, None)
    assert (answer["compliance_status"], answer["record"], answer["head"]) == ("FAIL", None, None)
    assert "altered" in answer["findings"][0]["reason"]
    keys = answer["attachments"]
    assert keys["report.html"] == f"{ROOT}unchained/Stack%2FBackup/run-9/report.html"
    assert b"outside the evidence chain" in s3.objects[keys["report.html"]]
    assert json.loads(s3.objects[keys["report.json"]])["compliance_status"] == "FAIL"
    assert s3.locks[keys["report.json"]]["ObjectLockMode"] == "GOVERNANCE"
    assert [k for k in s3.objects if k.startswith(chain_prefix(OWNER))] == [forged]


# --- The command -----------------------------------------------------------------------------------------------------


def command(*arguments):
    parser = argparse.ArgumentParser()
    evidence_cli.add_arguments(parser)
    return evidence_cli.run(parser.parse_args(["verify", *map(str, arguments)]))


@pytest.fixture
def copy_on_disk(tmp_path):
    for key, data in CHAIN.items():
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path


AS_OF = (START + timedelta(days=COUNT - 1, hours=1)).isoformat()


def test_a_copy_on_disk_is_verified_without_aws(copy_on_disk):
    status, document, told = command("--directory", copy_on_disk, "--as-of", AS_OF)
    assert (status, document["ok"]) == (0, True)
    assert "6 records, 12 attachments, 10 documents beside them (0 not recorded yet), 2026-11-01 to 2026-11-06" in told
    assert command("--directory", copy_on_disk / "compliance-backups" / "evidence", "--as-of", AS_OF)[0] == 0
    assert dict(read_directory(copy_on_disk)) == CHAIN


def test_the_command_fails_on_a_changed_byte_a_gap_and_a_wrong_head(copy_on_disk):
    assert command("--directory", copy_on_disk, "--as-of", "2026-12-24T00:00:00Z")[0] == 1
    assert command("--directory", copy_on_disk, "--as-of", "2026-12-24T00:00:00Z", "--longest-gap-hours", 0)[0] == 0
    assert command("--directory", copy_on_disk, "--as-of", AS_OF, "--head", "0" * 64)[0] == 1
    path = copy_on_disk / f"{ROOT}recovery-tests/weekly/3.json"
    path.rename(copy_on_disk / "elsewhere")
    assert f"{ROOT}recovery-tests/weekly/3.json is missing" in command("--directory", copy_on_disk, "--as-of", AS_OF)[2]
    (copy_on_disk / "elsewhere").rename(path)
    path = copy_on_disk / RECORDS[1].attachments[0].key
    path.write_bytes(path.read_bytes() + b"\n")
    status, document, told = command("--directory", copy_on_disk, "--as-of", AS_OF)
    assert (status, document["ok"]) == (1, False)
    assert "was altered" in told


@pytest.mark.parametrize(
    ("key", "says"),
    [("alias/backup", "not an alias, got 'alias/backup'"), ("", "got ''"), (KEY, "--key needs --bucket")],
)
def test_a_key_is_named_by_its_arn_and_needs_s3(copy_on_disk, key, says):
    with pytest.raises(SettingsError, match=re.escape(says)):
        command("--directory", copy_on_disk, "--key", key)


def test_a_directory_without_evidence_is_refused(tmp_path):
    with pytest.raises(EvidenceError, match="must hold"):
        command("--directory", tmp_path)
