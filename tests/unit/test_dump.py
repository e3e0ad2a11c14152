"""The dump engine against a real PostgreSQL and a real S3 server: what a set holds, and what comes back from it."""

from __future__ import annotations

import subprocess
import threading
from contextlib import closing

import pytest

from aurora_backup.catalog import Table, _normal
from aurora_backup.dump import MEMORY_BUDGET, DumpOptions, dump_set, memory_budget, plan_archives
from aurora_backup.errors import HandOver
from aurora_backup.ledger import CreationRecord, Ledger
from aurora_backup.manifest import NAME, Manifest
from aurora_backup.postgres import client_environment
from aurora_backup.restore import RestoreOptions, compare_with, create_database, restore_set
from aurora_backup.s3 import Bucket
from aurora_backup.sets import read_manifest, set_keys
from aurora_backup.verify import verify_set
from tests.unit.dumping import ROWS, SPLIT, dump, leftovers, request


def _plain(target, *arguments):
    with client_environment(target) as env:
        done = subprocess.run(
            ["pg_dump", *arguments, f"--dbname={target.conninfo()}"],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
    # A check like `kind IN ('in', 'out')` is written with other casts once it has been restored.
    return sorted(
        _normal("constraints", line) if "CHECK" in line or "INDEX" in line or "POLICY" in line else line
        for line in done.stdout.splitlines()
        if not line.startswith(("\\restrict", "\\unrestrict"))
    )


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_set_restores_to_a_database_that_dumps_the_same(sample, bucket, empty, jobs):
    manifest = dump(sample, bucket, jobs=jobs, split_bytes=SPLIT, digest=True, sha256=True)
    assert len(manifest.archives) == (1 if jobs == 1 else 4)
    assert manifest.facts.rows == ROWS
    assert manifest.facts.large_objects == 20
    assert all(archive.sha256 and archive.bytes for archive in manifest.archives)
    assert verify_set(bucket, manifest.set).ok
    restored = restore_set(bucket, manifest, empty, RestoreOptions(roles=True))
    assert restored.differences == ()
    assert restored.rows_restored == ROWS
    assert _plain(empty) == _plain(sample)


def test_the_manifest_counts_the_snapshot_while_the_source_is_written_to(own_sample, bucket, empty, postgres):
    stop = threading.Event()
    written = 0

    def write():
        nonlocal written
        with closing(postgres.connect(own_sample.dbname)) as connection:
            while not stop.is_set():
                connection.run("INSERT INTO clinic.visit (patient, cost) SELECT 1, 5 FROM generate_series(1, 20)")
                written += 20

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while written < 100:
            stop.wait(0.01)
        manifest = dump(own_sample, bucket, jobs=3, split_bytes=SPLIT)
    finally:
        stop.set()
        writer.join()
    counted = next(t.rows for t in manifest.facts.tables if t.name == "visit")
    assert 9100 <= counted < 9000 + written, "the table has grown since"
    restored = restore_set(bucket, manifest, empty, RestoreOptions(roles=True))
    assert restored.differences == ()


@pytest.mark.parametrize(
    "name",
    ["it's", 'say "hi"', "-rf", "dbname=postgres user=x", "postgresql://h/db", "naïve ☃", "a/../b", "%41", " ", "a\\b"],
)
def test_a_hostile_database_name_is_only_a_name(name, postgres, target, bucket):
    quoted = '"' + name.replace('"', '""') + '"'
    postgres.psql(f"CREATE DATABASE {quoted} TEMPLATE template0")
    postgres.psql("CREATE TABLE here (a int); INSERT INTO here VALUES (7)", name)
    manifest = dump(target(name), bucket)
    assert manifest.source["database"]["name"] == name
    assert manifest.facts.rows == 1
    assert set_keys(bucket, manifest.set) == [manifest.set]


@pytest.mark.parametrize("name", ["dbname=x 'y' \\ \"z\"", "-rf ☃"])
def test_a_set_can_be_restored_into_a_database_with_a_hostile_name(name, made, target, bucket):
    create_database(target(name), made)
    assert restore_set(bucket, made, target(name)).ok


def test_a_line_break_in_a_database_name(postgres, target, bucket):
    with closing(postgres.connect()) as connection:
        connection.run('CREATE DATABASE "line\nbreak" TEMPLATE template0')
    assert dump(target("line\nbreak"), bucket).source["database"]["name"] == "line\nbreak"


def test_an_empty_database_makes_a_set(empty, bucket, postgres, target):
    manifest = dump(empty, bucket, jobs=4)
    assert (len(manifest.archives), manifest.facts.rows) == (1, 0)
    assert verify_set(bucket, manifest.set).ok
    assert restore_set(bucket, manifest, target(postgres.database())).ok


def test_a_database_of_large_objects_only(empty, bucket, postgres, target):
    postgres.psql("SELECT lo_from_bytea(0, decode(md5(g::text), 'hex')) FROM generate_series(1, 300) g", empty.dbname)
    manifest = dump(empty, bucket, digest=True)
    assert manifest.facts.large_objects == 300
    copy = target(postgres.database())
    assert restore_set(bucket, manifest, copy).ok
    postgres.psql("SELECT lo_put(oid, 0, 'x') FROM pg_largeobject_metadata LIMIT 1", copy.dbname)
    assert [d.what for d in compare_with(manifest, copy, access=False)] == ["large objects' contents"]


def test_a_repeated_start_is_a_logged_no_op(sample, bucket, caplog):
    asked = request(sample.dbname)
    first = dump_set(sample, bucket, asked)
    keys = bucket.keys(asked.key)
    with caplog.at_level("INFO"):
        second = dump_set(sample, bucket, asked)
    assert (first.state, second.state) == ("done", "already-done")
    assert second.manifest == first.manifest
    assert bucket.keys(asked.key) == keys
    assert "no-op" in caplog.text


def test_concurrent_starts_end_in_one_set(sample, bucket):
    asked = request(sample.dbname)
    outcomes = []
    threads = [
        threading.Thread(target=lambda e=e: outcomes.append(dump_set(sample, bucket, e)))
        for e in (asked, request(sample.dbname, key=asked.key, execution="another"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.state for outcome in outcomes) == ["already-done", "done"]
    keys, uploads = leftovers(bucket, asked.key)
    assert (len(keys), uploads) == (2, [])
    assert read_manifest(bucket, asked.key).archives[0].crc32 == bucket.head(keys[0]).crc32


def test_the_same_execution_may_finish_what_a_killed_attempt_left(sample, bucket):
    asked = request(sample.dbname)
    Ledger(bucket).put(
        CreationRecord(
            kind="set", identifier=asked.key, owner=asked.owner, execution=asked.execution, created=asked.started,
            expires=asked.expires,
        )
    )  # fmt: skip
    bucket.write(asked.key + "0000.dump", "what a killed attempt left", once=True)
    outcome = dump_set(sample, bucket, asked)
    assert outcome.state == "done"
    assert verify_set(bucket, asked.key).ok


def test_the_first_start_asks_s3_for_nothing_that_cannot_be_there(empty, bucket, monkeypatch):
    called, call = [], Bucket._call

    def noted(self, operation, key, **arguments):
        called.append(operation)
        return call(self, operation, key, **arguments)

    monkeypatch.setattr(Bucket, "_call", noted)
    dump(empty, bucket)
    upload = ["create_multipart_upload", "upload_part", "complete_multipart_upload"]
    assert called == ["put_object", *upload, "put_object"]


def test_handing_over_leaves_nothing_but_the_claim(sample, bucket, monkeypatch):
    monkeypatch.setattr("aurora_backup.upload.CHECK_SECONDS", 0)

    def check(_sent):
        raise HandOver("too slow")

    asked = request(sample.dbname, check=check)
    with pytest.raises(HandOver, match="too slow"):
        dump_set(sample, bucket, asked, DumpOptions(jobs=3, split_bytes=SPLIT))
    assert leftovers(bucket, asked.key) == ([], [])
    # The engine that takes over is of the same execution.
    assert dump_set(sample, bucket, request(sample.dbname, key=asked.key, execution=asked.execution)).state == "done"


def test_counts_that_do_not_fit_their_time_are_labelled(sample, bucket):
    manifest = dump(sample, bucket, count_seconds=0)
    assert all(table.estimated for table in manifest.facts.tables)
    assert manifest.facts.estimated == len(manifest.facts.tables)
    told = verify_set(bucket, manifest.set, tiers=["full-decode"]).tiers[0].detail
    assert f"; {manifest.facts.estimated} tables were not counted when dumped, and not compared" in told
    assert manifest.facts.rows == 0, "an estimate is never summed as if it were a count"
    assert next(t.rows for t in manifest.facts.tables if t.name == "patient") == 3000  # analysed


def test_a_sequence_that_moves_during_the_dump_is_a_span(own_sample, bucket, monkeypatch, postgres):
    from aurora_backup import catalog

    original = catalog.assemble

    def moving(*args, **kwargs):
        postgres.psql("SELECT nextval('clinic.down'), setval('clinic.visit_id_seq', 12345)", own_sample.dbname)
        return original(*args, **kwargs)

    monkeypatch.setattr(catalog, "assemble", moving)
    manifest = dump(own_sample, bucket)
    moved = {s.name: (s.last_value, s.last_value_after) for s in manifest.facts.sequences}
    assert moved["down"] == (99, 98)
    assert moved["visit_id_seq"] == (9000, 12345)


def test_the_manifest_on_s3_is_the_one_returned(made, bucket):
    manifest = made
    assert Manifest.from_json(bucket.read(manifest.set + NAME)) == manifest
    assert manifest.snapshot_lsn
    assert manifest.server_version.startswith("17.")
    assert {"name": "Dr. O'Reader"}.items() <= next(r for r in manifest.roles["roles"] if "Dr." in r["name"]).items()


def test_archives_of_their_own_are_for_large_tables_largest_first():
    tables = [Table(n, "s", f"t{n}", size, 0, None) for n, size in enumerate([10, 500, 99, 100, 900])]
    assert [t.name for t in plan_archives(tables, 2, 100)] == ["t4", "t1", "t3"]
    assert plan_archives(tables, 1, 100) == []


def test_buffers_take_a_quarter_of_what_the_function_or_the_machine_has(monkeypatch):
    assert memory_budget(15 << 30) == 15 << 28
    assert memory_budget(512 << 20) == MEMORY_BUDGET
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "3538")
    assert memory_budget() == (3538 << 20) // 4
