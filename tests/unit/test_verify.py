"""Each tier of verification finds what it is for, and passes on the undamaged copy of the same set."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_backup.errors import ArchiveDamaged
from aurora_backup.manifest import NAME, VERIFICATION_NAME
from aurora_backup.s3 import NoSuchObject
from aurora_backup.verify import CHECKSUM, DECODE, QUICK, TIERS, TRIAL, _RowCounter, recorded, verify_set
from tests.unit.dumping import ROWS, SPLIT, dump


@pytest.fixture
def made(made, bucket):
    """The set that all share: what a test does to its objects is undone."""
    before = {key: bucket.read(key) for key in bucket.keys(made.set) if not key.endswith(VERIFICATION_NAME)}
    yield made
    for key, data in before.items():
        try:
            changed = bucket.read(key) != data
        except NoSuchObject:
            changed = True
        if changed:
            bucket.client.put_object(Bucket=bucket.name, Key=key, Body=data, ChecksumAlgorithm="CRC32")
    bucket.remove(made.set + VERIFICATION_NAME)


def _damage(bucket, manifest, change):
    """Replace the second archive's bytes, as storage that rots would, leaving the manifest as it is."""
    archive = manifest.archives[1]
    data = bytearray(bucket.read(archive.key))
    change(data)
    bucket.client.put_object(Bucket=bucket.name, Key=archive.key, Body=bytes(data), ChecksumAlgorithm="CRC32")
    return bytes(data)


def _flip(data):
    data[len(data) // 2] ^= 1


def _cut(data):
    del data[len(data) // 2 :]


def _tiers(result):
    return {tier.name: tier.ok for tier in result.tiers}


def test_an_undamaged_set_passes_every_tier_and_the_outcome_is_kept_beside_it(bucket, made):
    before = bucket.read(made.set + NAME)
    result = verify_set(bucket, made.set, tiers=TIERS)
    assert _tiers(result) == {CHECKSUM: True, DECODE: True, TRIAL: True}, result
    details = {tier.name: tier.detail for tier in result.tiers}
    assert details[TRIAL] == f"{ROWS} of {ROWS} rows restored and compared"
    assert bucket.read(made.set + NAME) == before
    kept = json.loads(bucket.read(made.set + VERIFICATION_NAME))
    assert kept["tiers"][DECODE]["ok"] is True
    assert kept["tiers"][DECODE]["at"]
    assert recorded(bucket, made.set, QUICK).tiers == result.tiers[:2]


@pytest.mark.parametrize(("change", "tiers"), [(_flip, TIERS), (_cut, QUICK)])
def test_damaged_bytes_fail_every_tier_but_a_listing(bucket, made, change, tiers):
    assert verify_set(bucket, made.set).ok
    data = _damage(bucket, made, change)
    listing = subprocess.run(["pg_restore", "--list"], input=data, capture_output=True, check=False)
    assert listing.returncode == 0, "a listing proves nothing: it passes on the damaged archive"
    result = verify_set(bucket, made.set, tiers=tiers)
    assert set(_tiers(result).values()) == {False}
    assert not result.ok
    assert recorded(bucket, made.set, QUICK) is None


def test_an_archive_that_is_gone_fails_both_tiers(bucket, made):
    bucket.remove(made.archives[1].key)
    assert _tiers(verify_set(bucket, made.set)) == {CHECKSUM: False, DECODE: False}


def test_a_set_without_a_manifest_is_not_a_backup(bucket, made):
    bucket.remove(made.set + NAME)
    result = verify_set(bucket, made.set)
    assert not result.ok
    assert "does not exist" in result.tiers[0].detail


def test_an_altered_manifest_is_found_by_its_own_digest(bucket, made):
    text = bucket.read(made.set + NAME).decode().replace('"rows": 9000', '"rows": 9001')
    bucket.write(made.set + NAME, text, once=False)
    result = verify_set(bucket, made.set)
    assert not result.ok
    assert "altered" in result.tiers[0].detail


def test_a_manifest_of_another_set_is_refused(bucket, made):
    moved = made.set.replace("20261121", "20261122")
    bucket.write(moved + NAME, bucket.read(made.set + NAME).decode(), once=True)
    assert "was moved" in verify_set(bucket, moved).tiers[0].detail


def test_decoding_counts_the_rows_of_every_table(bucket, made):
    """A dump that lost a row has perfect checksums: only counting finds it."""
    tables = tuple(replace(t, rows=t.rows + 1) if t.name == "derived" else t for t in made.facts.tables)
    wrong = replace(made, facts=replace(made.facts, tables=tables))
    bucket.write(made.set + NAME, wrong.to_json(), once=False)
    result = verify_set(bucket, made.set)
    assert _tiers(result) == {CHECKSUM: True, DECODE: False}
    assert "clinic.derived must have 2 rows, and the archive holds 1" in result.tiers[1].detail


def test_without_a_server_here_a_trial_restore_is_not_run_and_not_called_good(
    bucket, made, monkeypatch, pg_bin, tmp_path
):
    (tmp_path / "pg_restore").symlink_to(pg_bin / "pg_restore")
    monkeypatch.setenv("PATH", str(tmp_path))
    result = verify_set(bucket, made.set, tiers=[TRIAL])
    assert _tiers(result) == {TRIAL: None}
    assert "initdb" in result.tiers[0].detail
    assert not result.ok


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
CELL = st.sampled_from(["a", "\\\\.", "COPY x.y FROM stdin;", "", "1\t2", "\\N", "\\n\\."])


def _quoted(name):
    return '"' + name.replace('"', '""') + '"'


@given(
    st.lists(st.tuples(NAMES, NAMES, st.lists(NAMES, max_size=2), st.lists(CELL, max_size=5)), max_size=4),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_rows_are_counted_whatever_the_names_the_rows_and_the_pieces_they_come_in(blocks, sizes):
    text, expected = "SET x = 'COPY a.b FROM stdin;';\n\n", {}
    for schema, name, columns, rows in blocks:
        listed = f"({', '.join(map(_quoted, columns))}) " if columns else ""
        text += f"--\n-- Data\n--\n\nCOPY {_quoted(schema)}.{_quoted(name)} {listed}FROM stdin;\n"
        text += "".join(row + "\n" for row in rows) + "\\.\n\n\n"
        expected[schema, name] = expected.get((schema, name), 0) + len(rows)
    counter, data, position, number = _RowCounter(), text.encode(), 0, 0
    while position < len(data):
        size = sizes[number % len(sizes)]
        counter.feed(data[position : position + size])
        position, number = position + size, number + 1
    assert counter.finish("key") == expected


def test_an_output_that_ends_inside_a_table_is_damage():
    counter = _RowCounter()
    counter.feed(b"\nCOPY a.b (c) FROM stdin;\n1\n2\n")
    with pytest.raises(ArchiveDamaged, match=r"inside the rows of a\.b"):
        counter.finish("key")


def test_a_changed_byte_that_still_decodes_is_found_by_its_checksum(sample, bucket):
    made = dump(sample, bucket, jobs=2, split_bytes=SPLIT, compression="none")

    def change(data):
        place = data.index(b"line\\\\nline") if b"line\\\\nline" in data else data.index(b"\\\\x")
        data[place + 4] ^= 1

    _damage(bucket, made, change)
    result = verify_set(bucket, made.set, tiers=[DECODE])
    assert "must have the CRC32" in result.tiers[0].detail
