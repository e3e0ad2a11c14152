"""Where recovery keeps its documents in the backup bucket: baselines, plans, facts, reports, and remembered clusters.

Everything lies under `compliance-backups/evidence/`, which is kept as long as evidence must be. States of a workflow
carry keys, not documents. Reports are written once and never replaced.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aurora_backup.baseline import Facts, around
from aurora_backup.errors import ObjectExists
from aurora_backup.policy import Prefix, Tier
from aurora_backup.recovery import TESTED, Plan, Purpose

if TYPE_CHECKING:
    from aurora_backup.s3 import Bucket

EVIDENCE = f"{Prefix.COMPLIANCE.value}/evidence"
BASELINES = f"{EVIDENCE}/baselines"
CLUSTERS = f"{EVIDENCE}/clusters"
RUNS = f"{EVIDENCE}/recovery-runs"
TESTS = f"{EVIDENCE}/recovery-tests"
RECOVERIES = f"{EVIDENCE}/recoveries"
ADOPTIONS = f"{EVIDENCE}/adoptions"
_VOLATILE = {"LatestRestorableTime", "EarliestRestorableTime", "Capacity", "Status", "PercentProgress"}
_TIME = "%Y-%m-%dT%H%M%S.%fZ"
_BASELINE = re.compile(r"/([^/_]+Z)_([^/_]+Z)\.json$")


def stamp(moment: datetime) -> str:
    """Write a time so that keys sort by it."""
    return moment.astimezone(UTC).strftime(_TIME)


def _moment(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)


class RecoveryStore:
    """The documents of recovery in one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def keep_baseline(self, resource_id: str, facts: Facts) -> str:
        """Write a baseline; return its key, which holds when the reading began and ended."""
        key = f"{BASELINES}/{resource_id}/{stamp(facts.taken)}_{stamp(facts.finished)}.json"
        self._bucket.write(key, facts.to_json(), once=True)
        return key

    def baselines(self, resource_id: str, point: datetime) -> tuple[Facts | None, Facts | None]:
        """Read the last baseline that ended by a moment, and the first one that began after it."""
        matches = filter(None, map(_BASELINE.search, self._bucket.keys(f"{BASELINES}/{resource_id}/")))
        readings = [(_moment(match[1]), _moment(match[2]), match.string) for match in matches]
        before, after = around(readings, point)
        return (self.facts(before) if before else None, self.facts(after) if after else None)

    def keep_plan(self, plan: Plan) -> str:
        """Write the plan of an execution, once; a replay keeps the first one. Returns its key."""
        key = f"{RUNS}/{quote(plan.execution, safe='')}/plan.json"
        try:
            self._bucket.write(key, plan.to_json(), once=True)
        except ObjectExists:
            self.plan(key)  # it must at least be readable
        return key

    def plan(self, key: str) -> Plan:
        """Read a plan."""
        return Plan.from_json(self._bucket.read(key))

    def keep_facts(self, plan: Plan, facts: Facts) -> str:
        """Write what was read from a restored copy; a replay writes it again. Returns its key."""
        key = f"{RUNS}/{quote(plan.execution, safe='')}/facts.json"
        self._bucket.write(key, facts.to_json(), once=False)
        return key

    def facts(self, key: str) -> Facts:
        """Read a baseline or a restored copy's facts."""
        return Facts.from_json(self._bucket.read(key))

    def keep_test_report(self, plan: Plan, report: dict[str, Any]) -> str:
        """Write how a restored copy was judged; return its key. Tests' sort by tier and time."""
        name = quote(plan.execution, safe="")
        if plan.purpose is Purpose.RECOVERY:
            return self._keep_once(f"{RUNS}/{name}/judged.json", report)
        return self._keep_once(f"{TESTS}/{plan.point.tier}/{stamp(plan.started)}_{name}.json", report)

    def keep_hand_over(self, plan: Plan, document: dict[str, Any]) -> str:
        """Write a recovery's hand-over document; return its key."""
        return self._keep_once(f"{RECOVERIES}/{stamp(plan.started)}_{quote(plan.execution, safe='')}.json", document)

    def _keep_once(self, key: str, document: dict[str, Any]) -> str:
        try:
            self._bucket.write(key, json.dumps(document, indent=1, sort_keys=True), once=True)
        except ObjectExists:
            # A repeated step of the same execution: what it wrote first stands.
            if (self._bucket.read_json(key) or {}).get("execution") != document["execution"]:
                raise
        return key

    def report(self, key: str) -> Any:
        """Read a report, or None."""
        return self._bucket.read_json(key)

    def last_tests(self) -> dict[Tier, datetime]:
        """When each tier was tested last, from the reports' keys."""
        found = {}
        for tier in TESTED:
            keys = self._bucket.keys(f"{TESTS}/{tier.value}/")
            if keys:
                found[tier] = _moment(keys[-1].rpartition("/")[2].partition("_")[0])
        return found

    def remember(self, resource_id: str, cluster: dict[str, Any], instances: list[dict[str, Any]]) -> bool:
        """Keep what RDS says of the cluster, for the day when it is deleted. Returns whether anything was new."""
        key = f"{CLUSTERS}/{resource_id}.json"
        cluster = {name: value for name, value in cluster.items() if name not in _VOLATILE}
        text = json.dumps({"schema": 1, "cluster": cluster, "instances": instances}, default=str, sort_keys=True)
        if self._bucket.read_json(key) == json.loads(text):
            return False
        self._bucket.write(key, text, once=False)
        return True

    def remembered(self, resource_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """Read what was kept of a cluster, or None."""
        found = self._bucket.read_json(f"{CLUSTERS}/{resource_id}.json")
        return (found["cluster"], found["instances"]) if found else None
