"""The retention manager at scale: its daily run over 1,000, 10,000 and 100,000 recovery points.

The whole of `Sweeper.plan`, against the plan of the day before, and `Sweeper.act` (on a plan that is refused: it would
delete too much), over clients that serve pages from memory, as large as AWS's, and count their calls: time and memory
must grow with the points, and calls must be pages. Each size runs in a process of its own. Writes
build/bench/retention.json: the rows of the other benchmarks, and in each also `points`, `api_calls`, `pages`, `reads`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = Path("build/bench/retention.json")
SIZES = (1_000, 10_000, 100_000)
OWNER, US = "Bench/Backup", "cluster-BENCH"
NOW = datetime(2026, 11, 23, 5, 30, tzinfo=UTC)
_RDS_PAGE, _PAGE, _OBJECTS = 100, 1000, 3
_NOISE = 50  # ms, or MB
_MANY = 100_000  # once is enough: noise is small beside it
_SHARES = {"snapshots": 0.2, "recovery": 0.3, "sets": 0.5}


class Pages:
    """RDS, AWS Backup and S3 in one: `calls` counts every request, `pages` those that a complete listing needs."""

    def __init__(self, points: int) -> None:
        self.snapshots, self.recovery, self.sets = (int(points * share) for share in _SHARES.values())
        self.calls = self.reads = 0
        self.stored: dict[str, bytes] = {}

    @property
    def pages(self) -> int:
        """Listings of nothing take one call as well."""

        def needed(items: int, page: int) -> int:
            return max(1, -(-items // page))

        rds = needed(self.snapshots, _RDS_PAGE) + needed(0, 1) + needed(self.recovery, _RDS_PAGE)
        backup = needed(self.recovery, _PAGE)
        ledger = needed(self.snapshots, _PAGE) + needed(self.sets, _PAGE)
        versions = needed(self.sets * _OBJECTS, _PAGE) + 3  # and three prefixes that hold nothing
        return (
            rds + backup + ledger + versions + 4 + 1
        )  # and the uploads under four prefixes, and the register of holds

    @staticmethod
    def _when(number: int) -> datetime:
        return NOW - timedelta(hours=1 + number % 40_000)

    def _arn(self, kind: str, number: int) -> str:
        return f"arn:aws:rds:eu-west-1:111122223333:cluster-snapshot:{kind}{number}"

    def describe_db_cluster_snapshots(self, **query: Any) -> dict[str, Any]:
        """One page."""
        self.calls += 1
        kind, start = query["SnapshotType"], int(query.get("Marker", "0"))
        total = {"manual": self.snapshots, "awsbackup": self.recovery}.get(kind, 0)
        end = min(total, start + _RDS_PAGE)
        found = [
            {
                "DBClusterSnapshotIdentifier": f"{kind}{n}",
                "DBClusterSnapshotArn": self._arn(kind, n),
                "SnapshotType": kind,
                "DbClusterResourceId": US,
                "SnapshotCreateTime": self._when(n),
                "Status": "available",
                "StorageEncrypted": True,
                "TagList": [{"Key": "aurora-backup:owner", "Value": OWNER}],
            }
            for n in range(start, end)
        ]
        return {"DBClusterSnapshots": found, **({"Marker": str(end)} if end < total else {})}

    def get_paginator(self, operation: str) -> _Paginator:
        """Of S3 and AWS Backup."""
        return _Paginator(self, operation)

    def put_object(self, **query: Any) -> dict[str, Any]:
        """Plans and results."""
        self.stored[query["Key"]] = query["Body"]
        return {}

    def get_object(self, **query: Any) -> dict[str, Any]:
        """No set has a verification record; the newest set of each database is asked for it."""
        if query["Key"] in self.stored:
            data = self.stored[query["Key"]]
            return {"Body": io.BytesIO(data), "ContentLength": len(data)}
        self.reads += query["Key"].endswith("/verification.json")
        from botocore.exceptions import ClientError

        raise ClientError({"Error": {"Code": "NoSuchKey", "Message": ""}}, "GetObject")

    def items(self, operation: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What a listing holds."""
        if operation == "list_recovery_points_by_backup_vault":
            for n in range(self.recovery):
                yield {
                    "RecoveryPointArn": self._arn("awsbackup", n),
                    "ResourceType": "Aurora",
                    "Status": "COMPLETED",
                    "CreationDate": self._when(n),
                    "Lifecycle": {"DeleteAfterDays": 180},
                }
        elif operation == "list_objects_v2" and query["Prefix"].startswith("ledger/"):
            snapshots = "cluster-snapshot" in query["Prefix"]
            for n in range(self.snapshots if snapshots else self.sets):
                key = f"manual{n}" if snapshots else self._set(n).replace("/", "%2F")
                yield {"Key": f"{query['Prefix']}{key}.json"}
        elif operation == "list_object_versions" and query["Prefix"] == "logical-backups/":
            for n in range(self.sets):
                for name in ("0000.dump", "manifest.json", "verification.json"):
                    yield {"Key": self._set(n) + name, "IsLatest": True, "LastModified": self._when(n), "Size": 1 << 20}

    def _set(self, number: int) -> str:
        moment = self._when(number) - timedelta(seconds=number // 40_000)
        return f"logical-backups/{US}/db{number % 7}/{moment:%Y%m%dT%H%M%SZ}/"


_LISTED = {
    "list_recovery_points_by_backup_vault": "RecoveryPoints",
    "list_objects_v2": "Contents",
    "list_object_versions": "Versions",
    "list_multipart_uploads": "Uploads",
}


class _Paginator:
    def __init__(self, client: Pages, operation: str) -> None:
        self._client, self._operation = client, operation

    def paginate(self, **query: Any) -> Iterator[dict[str, Any]]:
        page: list[dict[str, Any]] = []
        key = _LISTED[self._operation]
        sent = False
        for item in self._client.items(self._operation, query):
            page.append(item)
            if len(page) == _PAGE:
                self._client.calls += 1
                sent = True
                yield {key: page}
                page = []
        if page or not sent:
            self._client.calls += 1
            yield {key: page}


def once(points: int) -> dict[str, int]:
    """Two days' runs; prints nothing. Returns what was counted on the second."""
    from aurora_backup.holds import HoldKeeper
    from aurora_backup.inventory import Inventory
    from aurora_backup.ledger import Ledger
    from aurora_backup.policy import RetentionPolicy
    from aurora_backup.rds import Rds
    from aurora_backup.s3 import Bucket
    from aurora_backup.sweep import Sweeper

    client, policy = Pages(points), RetentionPolicy.hipaa()
    bucket, rds = Bucket(client, "b"), Rds(client)
    sweeper = Sweeper(
        inventory=Inventory(rds=rds, backup=client, bucket=bucket, owner=OWNER, policy=policy, vaults=["vault"]),
        keeper=HoldKeeper(bucket=bucket, rds=rds, owner=OWNER),
        ledger=Ledger(bucket),
        rds=rds,
        bucket=bucket,
        owner=OWNER,
        policy=policy,
        lineage=(US,),
        region="eu-west-1",
        clock=lambda: NOW,
    )
    sweeper.plan(execution="yesterday", now=NOW)
    client.calls = client.reads = 0
    begun = time.process_time()  # of this process alone: others share the machine
    key, plan = sweeper.plan(execution="today", now=NOW)
    if plan["unknown"] or any(finding["rule"] == "not-compared" for finding in plan["findings"]):
        raise SystemExit(f"not everything was read: {plan['unknown']}")
    planned = time.process_time()
    sweeper.act(key)
    return {
        "points": len(plan["decisions"]),
        "api_calls": client.calls,
        "pages": client.pages,
        "reads": client.reads,
        "plan_bytes": len(client.stored[key]),
        "plan_ms": round(1000 * (planned - begun)),
        "act_ms": round(1000 * (time.process_time() - planned)),
    }


def main(sizes: Sequence[int], output: Path) -> int:
    """Measure each size; fails when calls are not pages, or time or memory grow faster than the points."""
    output = output.absolute()
    os.chdir(ROOT)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    runs = 1 if os.environ.get("BENCH_QUICK") == "1" else 3
    rows: list[dict[str, Any]] = []
    for size in sizes:
        costs, counted = [], {}
        for _ in range(runs if size < _MANY else 1):
            with tempfile.TemporaryDirectory() as directory:
                command = [sys.executable, "-m", "benchmarks.retention", "--once", str(size)]
                cost = measure.run(command, os.environ, Path(directory) / "log")
            counted = json.loads(cost.stdout)
            costs.append(measure.Cost(cost.wall, cost.cpu, cost.peak, counted["plan_bytes"]))
        row = measure.row(costs, name=f"points-{size}", workload="retention-plan", sink="memory", size=0, limit=None)
        rows.append({**vars(row), **counted})
        print(
            f"{counted['points']:>7} points: {row.wall_s:7.2f} s, {row.peak_mb:6.0f} MB, "
            f"{counted['api_calls']} calls for {counted['pages']} pages, {counted['reads']} verification records "
            f"(plan {counted['plan_ms']} ms, act {counted['act_ms']} ms)",
            flush=True,
        )
    document = {"schema": measure.SCHEMA, "machine": measure.machine(), "rows": rows}
    output.write_text(json.dumps(document, indent=1) + "\n")
    problems = list(wrong(rows))
    for problem in problems:
        print(f"WRONG: {problem}")
    print(output)
    return 1 if problems else 0


def wrong(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What is not as it should be. Linear: ten times the points take at most fifteen times the time and memory."""
    for row in rows:
        if row["api_calls"] != row["pages"]:
            yield f"{row['name']}: {row['api_calls']} calls for {row['pages']} pages"
    small, large = rows[-2], rows[-1]
    spent = [r["plan_ms"] + r["act_ms"] for r in (small, large)]
    for name, before, after in (("time", *spent), ("memory", small["peak_mb"], large["peak_mb"])):
        if after > max(15 * before, _NOISE):
            yield f"{name} grows faster than the points: {before} and {after}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retention", description=__doc__)
    parser.add_argument("--once", type=int, help="run on this many points, and print what was counted")
    parser.add_argument("--points", default=",".join(map(str, SIZES)), help="two sizes or more; Default: %(default)s")
    parser.add_argument("--output", type=Path, default=ROOT / OUTPUT, help="Default: %(default)s")
    options = parser.parse_args()
    if options.once is not None:
        print(json.dumps(once(options.once)))
        sys.exit(0)
    sys.exit(main([int(size) for size in options.points.split(",")], options.output))
