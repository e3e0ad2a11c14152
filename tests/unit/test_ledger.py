"""Creation records: only an exact, valid record of ours makes a thing ours."""

from __future__ import annotations

import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from aurora_backup.errors import RecordError
from aurora_backup.ledger import CreationRecord, Ledger, record_key

CREATED = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


def _record(**changes):
    values = {
        "kind": "cluster",
        "identifier": f"restored-{secrets.token_hex(4)}",
        "owner": "c8Stack/Backup",
        "execution": "run-1",
        "created": CREATED,
        "expires": CREATED + timedelta(hours=12),
    }
    return CreationRecord(**{**values, **changes})


@pytest.fixture
def ledger(bucket):
    return Ledger(bucket)


def test_a_record_is_written_once_and_a_replay_of_the_execution_is_ours(ledger):
    record = _record()
    assert ledger.put(record) == record
    replay = _record(identifier=record.identifier, created=CREATED + timedelta(minutes=5))
    assert ledger.put(replay) == record, "the first attempt's record stays in force"
    assert ledger.is_ours(record.kind, record.owner, record.identifier)
    assert ledger.is_ours(record.kind, record.owner, record.identifier, execution="run-1")
    assert not ledger.is_ours(record.kind, record.owner, record.identifier, execution="run-2")


def test_another_execution_cannot_claim_the_name(ledger):
    record = ledger.put(_record())
    with pytest.raises(RecordError, match="claimed by execution run-1, not by execution run-2"):
        ledger.put(_record(identifier=record.identifier, execution="run-2"))


def test_of_many_executions_at_once_one_wins(ledger):
    name = _record().identifier

    def claim(number):
        try:
            return ledger.put(_record(identifier=name, execution=f"run-{number}")).execution
        except RecordError:
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = [w for w in pool.map(claim, range(8)) if w]
    assert len(winners) == 1
    assert ledger.is_ours("cluster", "c8Stack/Backup", name, execution=winners[0])


def test_a_record_is_gone_after_its_thing(ledger):
    record = ledger.put(_record())
    ledger.close(record.kind, record.owner, record.identifier)
    assert ledger.get(record.kind, record.owner, record.identifier) is None
    ledger.close(record.kind, record.owner, record.identifier)


def test_the_records_of_one_kind_of_one_owner_are_listed(ledger, bucket):
    owner = f"owner-{secrets.token_hex(4)}"
    mine = [ledger.put(_record(owner=owner, identifier=name)) for name in ("a", "b/../c")]
    ledger.put(_record(owner=owner + "x"))
    ledger.put(_record(owner=owner, kind="instance"))
    bucket.write(record_key("cluster", owner, "forged"), mine[0].to_json(), once=True)
    bucket.write(record_key("cluster", owner, "broken"), "{", once=True)
    assert ledger.records("cluster", owner) == mine


DOCUMENT = json.loads(_record(identifier="x").to_json())
BAD = [
    "",
    "null",
    "[]",
    json.dumps({**DOCUMENT, "schema": 2}),
    json.dumps({**DOCUMENT, "schema": True}),
    json.dumps({**DOCUMENT, "extra": 1}),
    json.dumps({k: v for k, v in DOCUMENT.items() if k != "owner"}),
    json.dumps({**DOCUMENT, "owner": 3}),
    json.dumps({**DOCUMENT, "owner": ""}),
    json.dumps({**DOCUMENT, "owner": "somebody else"}),
    json.dumps({**DOCUMENT, "identifier": "y"}),
    json.dumps({**DOCUMENT, "kind": "instance"}),
    json.dumps({**DOCUMENT, "created": "2026-11-21T02:00:00"}),
    json.dumps({**DOCUMENT, "created": 5}),
    json.dumps({**DOCUMENT, "expires": "2026-11-20T02:00:00+00:00"}),
]


@pytest.mark.parametrize("text", BAD)
def test_a_forged_or_malformed_record_is_not_ours(ledger, bucket, text):
    bucket.write(record_key("cluster", "c8Stack/Backup", "x"), text, once=False)
    assert ledger.get("cluster", "c8Stack/Backup", "x") is None
    assert not ledger.is_ours("cluster", "c8Stack/Backup", "x")
    with pytest.raises(RecordError, match="an unreadable record"):
        ledger.put(_record(identifier="x"))
    bucket.remove(record_key("cluster", "c8Stack/Backup", "x"))


def test_the_undamaged_record_is_ours(ledger, bucket):
    bucket.write(record_key("cluster", "c8Stack/Backup", "x"), json.dumps(DOCUMENT), once=False)
    assert ledger.is_ours("cluster", "c8Stack/Backup", "x", execution="run-1")
    bucket.remove(record_key("cluster", "c8Stack/Backup", "x"))


def test_no_name_leads_to_another_s_record():
    keys = {record_key("cluster", o, i) for o, i in [("a", "b/c"), ("a/b", "c"), ("a", "b%2Fc"), ("a%2Fb", "c")]}
    assert len(keys) == 4
    assert all(key.count("/") == 3 for key in keys)


def test_times_must_be_aware_and_in_order():
    with pytest.raises(RecordError, match="created must be a time with a time zone"):
        _record(created=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(RecordError, match="expires must not be before created"):
        _record(expires=CREATED - timedelta(seconds=1))


def test_expiry():
    record = _record()
    assert not record.is_expired(CREATED)
    assert record.is_expired(CREATED + timedelta(hours=12))
    assert not _record(expires=None).is_expired(CREATED + timedelta(days=9999))
