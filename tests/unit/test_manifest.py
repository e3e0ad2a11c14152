"""The manifest: what it refuses, what it compares, how sets are named."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_backup.errors import ManifestError
from aurora_backup.manifest import (
    Archive,
    Facts,
    Manifest,
    SequenceFacts,
    TableFacts,
    _digest,
    compare,
    parse_set_key,
    set_key,
)

TABLE = TableFacts(schema="s", name="t", rows=5, bytes=100, digest="d")
FACTS = Facts(
    tables=(TABLE, TableFacts(schema="s", name="p1", rows=2, root=("s", "p"))),
    sequences=(
        SequenceFacts(schema="s", name="q", last_value=5, is_called=True, last_value_after=9, is_called_after=True),
    ),
    large_objects=3,
    large_objects_digest="x",
    extensions={"plpgsql": "1.0"},
    schema={"columns": "c", "grants": "g"},
    server_major=17,
)
MANIFEST = Manifest(
    set="p/c/d/20261121T020000Z/",
    owner="o",
    execution="e",
    started="2026-11-21T02:00:00+00:00",
    finished="2026-11-21T02:01:00+00:00",
    snapshot_time="2026-11-21T02:00:01+00:00",
    snapshot_lsn=None,
    compression="zstd:3",
    server_version="17.4",
    client_version="pg_dump (PostgreSQL) 17.10",
    source={"database": {"name": "d"}},
    archives=(
        Archive(key="k0", version_id=None, bytes=10, crc32="AAAAAA==", tables=(), seconds=1.5, warnings=("w",)),
        Archive(key="k1", version_id="v", bytes=20, crc32="AAAAAA==", tables=(("s", "t"),), seconds=1.0),
    ),
    facts=FACTS,
    roles={"roles": [], "memberships": []},
    not_covered=("passwords",),
)


def test_a_manifest_reads_back_as_it_was_written():
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert MANIFEST.size == 30
    assert MANIFEST.archive_of("s", "t").key == "k1"
    assert MANIFEST.archive_of("s", "p1").key == "k0"


def _document(**changes):
    data = {**json.loads(MANIFEST.to_json()), **changes}
    data.pop("digest")
    data = {key: value for key, value in data.items() if value is not ...}
    return json.dumps({**data, "digest": _digest(data)})


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5])
def test_an_unknown_version_is_refused_by_name(version):
    with pytest.raises(ManifestError, match=r"format_version must be 1, got"):
        Manifest.from_json(_document(format_version=version))


@pytest.mark.parametrize("field", ["archives", "facts", "set", "roles", "not_covered", "started"])
def test_a_missing_field_is_named(field):
    with pytest.raises(ManifestError, match=field):
        Manifest.from_json(_document(**{field: ...}))


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"format_version": 1}', b"\xff"])
def test_what_is_not_a_manifest_is_refused(text):
    with pytest.raises(ManifestError):
        Manifest.from_json(text)


def test_any_altered_value_is_found():
    with pytest.raises(ManifestError, match="altered"):
        Manifest.from_json(MANIFEST.to_json().replace('"rows": 5', '"rows": 4'))


def test_a_manifest_without_archives_is_refused():
    with pytest.raises(ManifestError, match="at least one archive"):
        Manifest.from_json(_document(archives=[]))


def test_a_later_writer_may_add_keys():
    document = json.loads(_document())
    document["facts"]["heartbeat"] = "2026"
    document["facts"]["tables"][0]["later"] = 1
    document["archives"][0]["later"] = 1
    assert Manifest.from_json(_document(**document)) == MANIFEST


def _with(**changes):
    return replace(FACTS, **changes)


DIFFERENCES = [
    ({}, []),
    ({"tables": FACTS.tables[1:]}, ["table s.t: expected present, found absent"]),
    ({"tables": (*FACTS.tables, replace(TABLE, name="new"))}, ["table s.new: expected absent, found present"]),
    ({"tables": (replace(TABLE, rows=4), FACTS.tables[1])}, ["rows of s.t: expected 5, found 4"]),
    ({"tables": (replace(TABLE, digest="e"), FACTS.tables[1])}, ["contents of s.t: expected d, found e"]),
    ({"tables": (replace(TABLE, digest=None), FACTS.tables[1])}, []),
    ({"tables": (replace(TABLE, rows=4, estimated=True, digest=None), FACTS.tables[1])}, []),
    ({"sequences": ()}, ["sequence s.q: expected present, found absent"]),
    ({"sequences": (replace(FACTS.sequences[0], last_value=7),)}, []),
    ({"sequences": (replace(FACTS.sequences[0], last_value=10),)}, ["sequence s.q: expected 5 to 9, found 10"]),
    (
        {"sequences": (replace(FACTS.sequences[0], is_called=False),)},
        ["sequence s.q: expected 5 to 9, found is_called=False"],
    ),
    ({"large_objects": 2}, ["large objects: expected 3, found 2"]),
    ({"large_objects_digest": "y"}, ["large objects' contents: expected x, found y"]),
    ({"extensions": {}}, ["extension plpgsql: expected 1.0, found absent"]),
    ({"extensions": {"plpgsql": "1.0", "postgis": "3"}}, ["extension postgis: expected absent, found 3"]),
    ({"schema": {"columns": "z", "grants": "g"}}, ["schema: columns: expected c, found z"]),
    ({"schema": {"columns": "z", "grants": "g"}, "server_major": 16}, []),
]


@pytest.mark.parametrize(("changes", "expected"), DIFFERENCES)
def test_every_difference_is_told_and_nothing_else(changes, expected):
    assert [str(difference) for difference in compare(MANIFEST, _with(**changes))] == expected


def test_owners_and_grants_count_only_when_roles_were_restored():
    changed = _with(schema={"columns": "c", "grants": "other"})
    assert compare(MANIFEST, changed, access=False) == []
    assert [d.what for d in compare(MANIFEST, changed)] == ["schema: grants"]


def test_only_the_tables_asked_for_are_compared():
    changed = _with(tables=(replace(TABLE, rows=1),), large_objects=0)
    assert [d.what for d in compare(MANIFEST, changed, tables=frozenset({("s", "t")}))] == ["rows of s.t"]
    assert compare(MANIFEST, changed, tables=frozenset()) == []


STARTED = datetime(2026, 11, 21, 2, 0, 0, 999, tzinfo=UTC)


@given(st.text(min_size=1).filter(lambda s: "\0" not in s and s.isprintable()), st.text("abc-XYZ019", min_size=1))
def test_a_set_s_key_is_one_path_and_reads_back(database, cluster):
    key = set_key("logical-backups", cluster, database, STARTED)
    assert len(key.split("/")) == 5
    assert not {".", "..", ""} & set(key.split("/")[:-1])
    assert parse_set_key(key) == ("logical-backups", cluster, database, STARTED.replace(microsecond=0))


@pytest.mark.parametrize("name", [".", "..", "a/b", "%2F", "../../evidence"])
def test_no_database_name_reaches_another_prefix(name):
    assert set_key("p", "c", name, STARTED).startswith("p/c/")
    assert set_key("p", "c", name, STARTED).count("/") == 4


def test_the_same_moment_in_another_zone_is_the_same_set():
    moved = STARTED.astimezone(timezone(timedelta(hours=5)))
    assert set_key("p", "c", "d", moved) == set_key("p", "c", "d", STARTED)


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        set_key("p", "c", "d", STARTED.replace(tzinfo=None))


@pytest.mark.parametrize("key", ["", "a/b/c/d/", "c/d/20261121T020000Z/", "p/c/d/2026-11-21/", "manifest.json"])
def test_what_is_not_a_set_s_key_is_refused(key):
    with pytest.raises(ManifestError, match="must be named"):
        parse_set_key(key)
