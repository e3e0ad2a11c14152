"""The benchmark's own parts: the sinks answer as S3 does, every row runs on a small database, reports say what ran."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from aurora_backup.errors import ObjectExists
from aurora_backup.s3 import Bucket, NoSuchObject
from benchmarks import dump, generate, measure, report, sinks
from benchmarks.measure import Row

MIB = 1 << 20


def _serve(shape):
    sink = sinks.Sink(shape)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    config = Config(s3={"payload_signing_enabled": False}, retries={"max_attempts": 0})
    client = boto3.client("s3", endpoint_url=sink.endpoint_url, config=config)
    return sink, Bucket(client, "bucket")


@pytest.fixture
def bucket():
    sink, bucket = _serve(sinks.NULL)
    yield bucket
    sink.shutdown()
    sink.server_close()


def _code(call, **arguments):
    with pytest.raises(ClientError) as refused:
        call(Bucket="bucket", **arguments)
    return refused.value.response["Error"]["Code"]


def test_a_sink_knows_the_size_of_a_multipart_object_that_it_threw_away(bucket):
    upload = bucket.begin("big")
    parts = [
        {"PartNumber": n, "ETag": bucket.part("big", upload, n, bytearray(size), "AAAAAA==")}
        for n, size in ((1, 6 * MIB), (2, 1000))
    ]
    stored = bucket.finish("big", upload, parts, size=6 * MIB + 1000, crc32="AAAAAA==", replaces=None)
    assert bucket.head("big") == dataclasses.replace(stored, version_id=None)
    assert stored.bytes == 6 * MIB + 1000
    assert bucket.keys("b") == ["big"]


def test_a_sink_keeps_small_objects_and_refuses_to_replace_one(bucket):
    bucket.write("a/manifest.json", "{}", once=True)
    assert bucket.read("a/manifest.json") == b"{}"
    with pytest.raises(ObjectExists):
        bucket.write("a/manifest.json", "[]", once=True)
    bucket.remove("a/manifest.json")
    assert bucket.keys("") == []


def test_a_sink_refuses_what_s3_refuses(bucket):
    client = bucket.client
    for operation in (bucket.read, bucket.head):
        with pytest.raises(NoSuchObject):
            operation("absent")
    missing = {"Parts": [{"PartNumber": 2, "ETag": "x"}]}
    upload = bucket.begin("k")
    assert _code(client.upload_part, Key="k", UploadId="none", PartNumber=1, Body=b"x") == "NoSuchUpload"
    assert _code(client.complete_multipart_upload, Key="k", UploadId=upload, MultipartUpload=missing) == "InvalidPart"
    bucket.abort("k", upload)
    assert _code(client.upload_part, Key="k", UploadId=upload, PartNumber=1, Body=b"x") == "NoSuchUpload"
    bucket.write("k", "taken", once=True)
    upload = bucket.begin("k")
    part = [{"PartNumber": 1, "ETag": bucket.part("k", upload, 1, b"x", "g9y+gw==")}]
    taken = {"Key": "k", "UploadId": upload, "MultipartUpload": {"Parts": part}, "IfNoneMatch": "*"}
    assert _code(client.complete_multipart_upload, **taken) == "PreconditionFailed"


def test_a_shaped_sink_takes_the_time_that_its_rate_and_latency_say():
    sink, bucket = _serve(sinks.Shape(rate=20e6, latency=0.05))
    try:
        begun = time.monotonic()
        bucket.part("k", bucket.begin("k"), 1, bytearray(4_000_000), "AAAAAA==")
        assert time.monotonic() - begun >= 0.05 + 0.2 + 0.05
    finally:
        sink.shutdown()
        sink.server_close()


@pytest.fixture(scope="module")
def place(postgres, tmp_path_factory):
    sink, _ = _serve(sinks.NULL)
    where = dump.Place(postgres.server, {"null": sink.endpoint_url}, tmp_path_factory.mktemp("bench"), None)
    generate.generate(postgres.server, "bench", 2)
    yield where
    sink.shutdown()
    sink.server_close()
    postgres.psql('DROP DATABASE "bench"')


def test_a_generated_database_is_the_same_every_time_and_fills_every_table(postgres, place):
    def rows(name):
        counts = " + ".join(f"(SELECT count(*) FROM {generate.SCHEMA}.{table})" for table in generate.TABLES)
        digest = f"(SELECT md5(string_agg(body, '' ORDER BY id)) FROM {generate.SCHEMA}.note)"
        return postgres.psql(f"SELECT {counts}, {digest}", name)

    empty = [t for t in generate.TABLES if not int(postgres.psql(f"SELECT count(*) FROM clinic.{t}", "bench"))]
    assert empty == []
    generate.generate(postgres.server, "bench_again", 2)
    assert rows("bench") == rows("bench_again")
    postgres.psql('DROP DATABASE "bench_again"')


# The AWS CLI has an environment of its own, which only `make bench` makes.
@pytest.mark.parametrize("name", [name for name in dump.NAMES if name != "aws-s3-cp"])
def test_every_row_runs(place, name):
    cost = place.measure(name, "null", "bench")
    assert cost.wall > 0
    assert cost.cpu > 0
    assert cost.peak > 5 * MIB
    assert (cost.output is None) is (name in {"limit", "copy"})
    assert cost.output is None or cost.output > 100_000


def test_rows_that_would_differ_by_noise_alone_share_their_runs():
    assert dump._run_of(("shaped", "limit")) == dump._run_of(("null", "limit")) == ("null", "limit")
    assert dump._run_of(("shaped", "ours-default")) == ("shaped", "ours-fast")
    assert dump._run_of(("shaped", "document")) == ("shaped", "document")


def test_a_row_that_fails_says_why(place, tmp_path):
    with pytest.raises(measure.CommandFailedError, match="does not exist"):
        place.measure("limit", "null", "absent")
    with pytest.raises(measure.CommandFailedError, match="status 3: told"):
        measure.run(["sh", "-c", "echo told >&2; exit 3"], {"PATH": "/usr/bin:/bin"}, tmp_path / "log")


def test_the_peak_is_that_of_the_largest_process_however_short_its_life(tmp_path):
    env = {"PATH": os.environ["PATH"]}
    grow = f"{sys.executable} -I -S -c 'b = bytearray(bytes([1])) * (150 << 20)'"
    small = measure.run(["true"], env, tmp_path / "log")
    large = measure.run(["sh", "-c", f"{grow} & {grow}; wait"], env, tmp_path / "log")
    assert MIB < small.peak < 20 * MIB
    assert 150 * MIB < large.peak < 180 * MIB
    assert large.cpu > small.cpu > 0
    assert large.wall > small.wall > 0


def _row(name, wall, *, sink="null", workload="dump", output=300.0, peak=200.0):
    limit = None if name == "limit" else "limit"
    return Row(name, workload, sink, 1000.0, wall, 1.0, peak, output if limit else None, 3, limit)


def _rows(fast=5.4, *, shaped_fast=6.0, peak=205.0):
    return [
        _row("limit", 4.0),
        _row("document", 60.0, output=306.0),
        _row("ours-fast", fast),
        _row("ours-default", 7.0, output=281.0),
        _row("limit", 4.0, sink="shaped"),
        _row("aws-s3-cp", 8.0, sink="shaped"),
        _row("ours-fast", shaped_fast, sink="shaped"),
        _row("ours-default", 7.5, sink="shaped"),
        _row("ours-default", 2.0, workload="memory", peak=200.0),
        _row("ours-default", 7.0, workload="memory", peak=peak),
    ]


def test_what_was_reached_is_told_against_what_was_asked():
    assert [v.ok for v in report.verdicts(_rows())] == [True] * 7
    missed = report.verdicts(_rows(9.0, shaped_fast=8.5, peak=230.0))
    assert [v.ok for v in missed] == [False, False, True, False, True, True, False]
    assert missed[0].reached == "2.25 x"
    assert "NO   fast at most 1.35 x the limit (null): 2.25 x" in report.asked(_rows(9.0))


def test_a_ratio_is_taken_on_the_same_workload_and_sink():
    assert " 1.35 " in report.table(_rows())
    assert report.ratio(_row("ours-fast", 9.0, sink="other"), _rows(), "limit") is None


def test_the_document_has_the_schema_that_the_design_gives(tmp_path):
    costs = [measure.Cost(wall, 2.0, 200_000_000, 30_000_000) for wall in (1.0, 9.0, 2.0)]
    row = measure.row(costs, name="ours-fast", workload="dump", sink="null", size=10**9, limit="limit")
    path = tmp_path / "bench" / "dump.json"
    measure.write(path, measure.machine(), [row])
    document = json.loads(path.read_text())
    assert set(document) == {"schema", "machine", "rows"}
    assert document["schema"] == 1
    assert document["machine"]["cpus"] >= 1
    assert document["rows"] == [
        {
            "name": "ours-fast", "workload": "dump", "sink": "null", "size_mb": 1000.0, "wall_s": 2.0, "cpu_s": 2.0,
            "peak_mb": 200.0, "output_mb": 30.0, "runs": 3, "limit": "limit",
        }
    ]  # fmt: skip


def test_quick_and_full_change_how_much_is_run():
    quick, full = (dump.Plan.from_environment({name: "1"}) for name in ("BENCH_QUICK", "BENCH_FULL"))
    assert quick.size_mb < dump.Plan().size_mb
    assert max(full.memory_mb) == 4000
    assert dump.Plan.from_environment({}) == dump.Plan()
