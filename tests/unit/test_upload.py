"""The uploader alone: how a stream is cut, how much memory it takes, and what a broken one leaves."""

from __future__ import annotations

import contextlib
import os
import threading
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_backup.errors import S3Failed, SettingsError
from aurora_backup.manifest import crc32_text
from aurora_backup.s3 import Stored
from aurora_backup.upload import (
    MAX_OBJECT,
    MAX_PART,
    MAX_PARTS,
    MIB,
    PartPlan,
    Upload,
    fit_workers,
    join_crc32,
    plan_parts,
)

GB = 10**9
SIZES = st.integers(0, 5 * 10**12)


@given(SIZES | st.integers(0, 10**8), st.integers(48, 4096), st.integers(1, 8))
def test_a_plan_keeps_the_budget_and_never_meets_the_part_limit(expected, budget_mib, threads):
    budget = budget_mib * MIB
    try:
        plan = plan_parts(expected, budget=budget, threads=threads)
    except SettingsError:
        assert budget < 2 * max(24 * MIB, expected / 9100 + MIB)
        assert expected >= 8 << 30
        return
    assert plan.base * plan.buffers <= budget
    for number in (1, 400, 401, 9_500, 9_501, 9_800, MAX_PARTS):
        assert 5 * MIB <= plan.size(number) <= MAX_PART
        assert plan.size(number) * plan.buffers_for(number) <= budget
    roomy = budget >= 2 * max(24 * MIB, expected * 1.5 / 9100 + MIB)
    assert plan.capacity >= min(expected * (1.5 if roomy else 1), MAX_OBJECT)


@given(
    workers=st.integers(1, 16),
    budget=st.sampled_from([256 * MIB, 884 * MIB, 15 << 28]),
    sizes=st.lists(st.integers(0, 10**12), min_size=1, max_size=20),
)
def test_as_many_archives_are_made_side_by_side_as_have_room_for_their_parts(workers, budget, sizes):
    fitting = fit_workers(workers, sizes, budget)
    assert 1 <= fitting <= min(workers, len(sizes))
    for size in sizes:
        plan_parts(size, budget=budget // fitting, threads=2)  # refuses none


def test_eight_cores_make_eight_archives_where_the_memory_is_theirs():
    tables = [250 * GB, *[10 * GB] * 9]
    assert fit_workers(8, [GB] * 10, 256 * MIB) == 8
    assert fit_workers(8, [10 * GB] * 10, 256 * MIB) == 5
    assert fit_workers(4, tables, 256 * MIB) == 3
    assert fit_workers(8, tables, 15 << 28) == 8, "a quarter of the 15 GiB that CodeBuild's LARGE has"


def test_memory_is_flat_from_nothing_to_8_gib_and_from_there_to_150_gb():
    plans = [
        {plan_parts(size, budget=256 * MIB, threads=3) for size in sizes}
        for sizes in ((0, 64 * MIB, GB // 4, GB, 4 * GB), (9 * GB, 150 * GB))
    ]
    assert plans == [{PartPlan(8 * MIB, 4, 256 * MIB)}, {PartPlan(24 * MIB, 4, 256 * MIB)}]


def test_a_small_archive_takes_less_memory_and_may_still_turn_out_large():
    plan = plan_parts(GB, budget=256 * MIB, threads=3)
    assert plan == PartPlan(8 * MIB, 4, 256 * MIB)
    assert plan.capacity > 79 * GB


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_the_checksum_of_the_whole_follows_from_those_of_the_parts(first, second):
    assert join_crc32(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_the_checksum_of_large_parts_is_joined_too():
    part = os.urandom(1 << 20)
    assert join_crc32(zlib.crc32(part), zlib.crc32(part * 3), 3 << 20) == zlib.crc32(part * 4)


def test_parts_grow_when_an_archive_is_far_larger_than_expected():
    plan = plan_parts(GB, budget=256 * MIB, threads=3)
    assert plan.size(9_500) < plan.size(9_501) < plan.size(9_601)
    assert plan.capacity > 9_500 * 8 * MIB


def test_the_first_parts_are_small_so_that_the_last_of_a_usual_archive_is():
    plan = plan_parts(10 * GB, budget=256 * MIB, threads=3)
    assert [plan.size(n) // MIB for n in (1, 400, 401, 9_500)] == [8, 8, 24, 24]


def test_a_budget_too_small_for_the_database_is_refused_with_the_number():
    with pytest.raises(SettingsError, match=r"memory budget must be at least 420 MiB for a database of 2\d+ bytes"):
        plan_parts(2 * 10**12, budget=256 * MIB, threads=3)


class MemoryBucket:
    """Keeps parts in memory, and looks at which buffers they come in."""

    def __init__(self, fail=None, gate=None):
        self.parts, self.buffers, self.aborted, self.object = {}, set(), 0, None
        self.fail, self.gate, self.lock = fail, gate, threading.Lock()

    def begin(self, _key):
        return "id"

    def part(self, _key, _upload_id, number, body, crc32):
        if self.gate:
            self.gate.wait(5)
        if number == self.fail:
            raise S3Failed(f"part {number}")
        assert crc32_text(zlib.crc32(body)) == crc32
        with self.lock:
            self.parts[number] = bytes(body)
            if isinstance(body, bytearray):
                self.buffers.add(id(body))
        return f"etag-{number}"

    def finish(self, key, _upload_id, parts, *, size, crc32, replaces):
        data = b"".join(self.parts[p["PartNumber"]] for p in parts)
        assert (len(data), crc32_text(zlib.crc32(data)), replaces) == (size, crc32, None)
        self.object = data
        return Stored(key, size, "etag", None, crc32)

    def abort(self, _key, _upload_id):
        self.aborted += 1


PLAN = PartPlan(base=1000, buffers=3, budget=3000)


def _pipe(data, pause=None):
    reading, writing = os.pipe()

    def write():
        # An upload that stops closes the pipe.
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as out:
            out.write(data)
            if pause:
                out.flush()
                pause.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    return reading, thread


def _through(upload, reading):
    upload.consume(reading)
    return upload.complete()


def _send(bucket, data):
    reading, thread = _pipe(data)
    with Upload(bucket, "k", PLAN, sha256=True) as upload:
        done = _through(upload, reading)
    thread.join()
    os.close(reading)
    return done


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2000, 70_001])
def test_what_goes_in_comes_out_in_whole_parts_and_a_few_buffers(size):
    data = os.urandom(size)
    bucket = MemoryBucket()
    done = _send(bucket, data)
    assert bucket.object == data
    assert done.bytes == size
    assert [len(bucket.parts[n]) for n in sorted(bucket.parts)][:-1] == [1000] * (done.parts - 1)
    assert len(bucket.buffers) <= PLAN.buffers
    assert bucket.aborted == 0


@pytest.mark.parametrize("part", [1, 2, 30, 71])
def test_a_part_that_fails_stops_the_stream_and_aborts(part):
    bucket = MemoryBucket(fail=part)
    reading, thread = _pipe(os.urandom(70_001))
    upload = Upload(bucket, "k", PLAN)
    with pytest.raises(S3Failed, match=f"part {part}"), upload:
        _through(upload, reading)
    os.close(reading)
    thread.join(5)
    assert (bucket.object, bucket.aborted) == (None, 1)


def test_leaving_without_completing_aborts_after_the_last_part_has_arrived():
    bucket = MemoryBucket()
    reading, thread = _pipe(os.urandom(5000))
    with Upload(bucket, "k", PLAN) as upload:
        upload.consume(reading)
    thread.join()
    os.close(reading)
    assert (bucket.object, bucket.aborted) == (None, 1)


def test_a_silent_stream_is_still_checked_and_may_be_stopped(monkeypatch):
    monkeypatch.setattr("aurora_backup.upload.CHECK_SECONDS", 0.05)
    pause = threading.Event()
    bucket = MemoryBucket()
    reading, thread = _pipe(b"x" * 10, pause)
    calls = []

    def check():
        calls.append(1)
        if len(calls) > 2:
            raise S3Failed("enough")

    with pytest.raises(S3Failed, match="enough"), Upload(bucket, "k", PLAN) as upload:
        upload.consume(reading, check)
    pause.set()
    thread.join()
    os.close(reading)
    assert bucket.aborted == 1


def test_a_slow_s3_holds_the_reader_back_instead_of_filling_memory():
    gate = threading.Event()
    bucket = MemoryBucket(gate=gate)
    reading, thread = _pipe(os.urandom(20_000))
    upload = Upload(bucket, "k", PLAN).start()
    consumer = threading.Thread(target=upload.consume, args=(reading,))
    consumer.start()
    consumer.join(0.3)
    assert consumer.is_alive()
    assert upload.bytes <= 3000
    gate.set()
    consumer.join()
    upload.complete()
    thread.join()
    os.close(reading)


def test_parts_that_grow_stay_within_the_budget(monkeypatch):
    monkeypatch.setattr("aurora_backup.upload._FLAT_PARTS", 3)
    monkeypatch.setattr("aurora_backup.upload._FINE_PARTS", 0)
    plan = PartPlan(base=1000, buffers=4, budget=4000)
    assert [plan.size(n) for n in (3, 4, 200)] == [1000, 2000, 2000]
    data = os.urandom(20_500)
    bucket = MemoryBucket()
    reading, thread = _pipe(data)
    with Upload(bucket, "k", plan) as upload:
        upload.consume(reading)
        upload.complete()
    thread.join()
    os.close(reading)
    assert bucket.object == data
    assert {len(part) for part in bucket.parts.values()} == {1000, 2000, 1500}
