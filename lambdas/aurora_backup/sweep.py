"""The sweep: plan, then act on the plan, looking again before each step. Everything is recorded as evidence.

`Sweeper.plan` observes, decides and writes the plan, once for each execution. `Sweeper.act` takes a plan that was not
refused, and for each deletion reads the point, the holds and the good copies that the plan relies on again, asks
`retention.decide` again about just these, deletes, looks whether it is gone, and writes the result. A repetition finds
the documents and what is gone already, and changes nothing.

Documents lie under `compliance-backups/evidence/retention/<owner>/<date>-<execution>/`: `plan.json`, `result.json`. The
second yes lies under `registers/confirmations/`, where neither of the two that need it can write.

Only two things are ever deleted: manual cluster snapshots by `rds:DeleteDBClusterSnapshot`, and the current versions of
a dump set's objects, manifest first, which leaves delete markers: for as long as S3 keeps noncurrent versions, a set
that was swept can be brought back by removing the markers, and its role cannot delete a version.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aurora_backup import tags
from aurora_backup.errors import BackupError, ManifestError, ObjectExists, cause
from aurora_backup.evidence import REGISTERS
from aurora_backup.forecast import costs
from aurora_backup.holds import Applied, by_point, names_a_point
from aurora_backup.inventory import (
    EVIDENCE,
    PREFIX_TIERS,
    SET_RECORDS,
    SNAPSHOT_RECORDS,
    set_points,
    snapshot_point,
    verified,
)
from aurora_backup.manifest import NAME, parse_set_key, set_key
from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA, Prefix
from aurora_backup.retention import (
    AHEAD,
    GUARD_MATTER,
    PLAN_SCHEMA,
    Action,
    Finding,
    Kind,
    RecoveryPoint,
    Status,
    Verified,
    check,
    decide,
    decision_document,
    drifted,
    minimum_copies,
    point_from_document,
    tier_facts,
    vanished,
)
from aurora_backup.s3 import NoSuchObject
from aurora_backup.sets import read_manifest, set_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from aurora_backup.holds import HoldKeeper
    from aurora_backup.inventory import Inventory
    from aurora_backup.ledger import CreationRecord, Ledger
    from aurora_backup.manifest import Archive
    from aurora_backup.policy import RetentionPolicy
    from aurora_backup.rds import Rds
    from aurora_backup.retention import Plan
    from aurora_backup.s3 import Bucket

ROOT = f"{EVIDENCE}retention/"
CONFIRMATIONS = f"{REGISTERS}confirmations/"
_SKEW = timedelta(minutes=5)  # between RDS's clock and the one that a record's time came from
_NOT_COMPARED = "not-compared"
REPORT, UNCONFIRMED, ENFORCE = "report", "unconfirmed", "enforce"


class PlanNotActedOn(BackupError):  # noqa: N818  names say what happened, as in errors.py
    """A plan cannot be acted on: it is refused, altered, of an unknown schema, or of somebody else."""


@dataclass(frozen=True)
class Outcome:
    """What became of one planned deletion: deleted, gone (before), kept (why), or failed (why)."""

    identifier: str
    state: str
    reason: str


def folder(owner: str) -> str:
    """Where an owner's plans are."""
    return f"{ROOT}{quote(owner, safe='')}/"


def confirmation_key(owner: str) -> str:
    """The second yes: without this object nothing is deleted, whatever the policy says."""
    return f"{CONFIRMATIONS}{quote(owner, safe='')}.json"


class Sweeper:
    """Plans and acts for one owner. lineage: resource ids that count as its cluster; empty makes every plan refused.

    region: whose prices the plan's costs are at. clock: what says how late it is, to doubt the time that is given.
    quota: of manual cluster snapshots in the Region.
    """

    def __init__(
        self,
        *,
        inventory: Inventory,
        keeper: HoldKeeper,
        ledger: Ledger,
        rds: Rds,
        bucket: Bucket,
        owner: str,
        policy: RetentionPolicy,
        lineage: Collection[str],
        region: str,
        clock: Callable[[], datetime],
        quota: int = MANUAL_SNAPSHOT_QUOTA,
    ) -> None:
        self._region, self._clock, self._quota = region, clock, quota
        self._inventory, self._keeper, self._ledger, self._rds = inventory, keeper, ledger, rds
        self._bucket, self._owner, self._policy, self._lineage = bucket, owner, policy, frozenset(lineage)

    # --- the plan

    def plan(self, *, execution: str, now: datetime, ahead: bool = False) -> tuple[str, dict[str, Any]]:
        """Observe and decide; return the key and the content of the plan. The first plan of an execution stands.

        ahead: `now` is ahead of every clock on purpose.
        """
        key = f"{folder(self._owner)}{now:%Y-%m-%d}-{quote(execution, safe='')}/plan.json"
        stored = self._bucket.read_json(key)
        if stored is not None:
            return key, self._checked(stored)
        document = self._document(execution, now, ahead)
        try:
            self._bucket.write(key, json.dumps(document, sort_keys=True), once=True)
        except ObjectExists:
            return key, self._checked(self._bucket.read_json(key))
        compared = all(finding["rule"] != _NOT_COMPARED for finding in document["findings"])
        if not document["unknown"] and compared:
            self._bucket.write(_latest(self._owner), json.dumps({"plan": key}), once=False)
        return key, document

    def _document(self, execution: str, now: datetime, ahead: bool) -> dict[str, Any]:
        observed = self._inventory.observe()
        unknown = list(observed.unknown)
        held: dict[str, tuple[str, ...]] = {}
        points = observed.points
        findings: tuple[Finding, ...] = ()
        clock = self._clock()

        def decided() -> Plan:
            return decide(
                points, self._policy, held, now, lineage=self._lineage, unknown=unknown, clock=clock, ahead=ahead
            )

        try:
            held = by_point(self._keeper.holds(), (p.identifier for p in points))
            plan, locked = decided(), frozenset[str]()
            if not unknown:
                findings += self._drifted(points, held)
                locked = self._locked(plan)
        except Exception as error:  # noqa: BLE001  nobody knows what is held: nothing may go
            unknown.append(f"legal holds: {cause(error)}")
            plan, locked = decided(), frozenset()
        if locked:
            points = tuple(replace(p, held=True) if p.identifier in locked else p for p in points)
            plan = decided()
        findings += check(points, self._policy, now, lineage=self._lineage, quota=self._quota)
        if not unknown:  # what could not be listed has not vanished
            findings += self._vanished(points, now)
        return {
            "schema": PLAN_SCHEMA,
            "owner": self._owner,
            "execution": execution,
            "now": now.isoformat(),
            "clock": clock.isoformat(),
            "ahead_of_clock": ahead,
            "mode": self._mode(),
            "lineage": sorted(self._lineage),
            "policy": json.loads(self._policy.to_json()),
            "unknown": unknown,
            **_plan_fields(plan),
            "findings": [asdict(f) for f in sorted(set(findings))],
            "tiers": [asdict(f) for f in tier_facts(points, self._policy, now, lineage=self._lineage)],
            "costs": costs(points, self._policy, now, lineage=self._lineage, region=self._region, unknown=unknown),
        }

    def _mode(self) -> str:
        if not self._policy.sweep.enforce:
            return REPORT
        return ENFORCE if self._confirmed() else UNCONFIRMED

    def _confirmed(self) -> bool:
        try:
            found = self._bucket.read_json(confirmation_key(self._owner))
            return bool(found and found["owner"] == self._owner)
        except (ValueError, KeyError, TypeError):
            return False

    def _locked(self, plan: Plan) -> frozenset[str]:
        """Those sets that the plan would delete and S3 holds: it is asked object by object."""
        asked = [d.point.identifier for d in plan.proposed if d.point.kind is Kind.SET]
        if len(asked) > self._policy.sweep.max_deletions:
            return frozenset()  # the plan is refused whatever S3 says
        return frozenset(key for key in asked if self._keeper.held_in_s3(key))

    def _drifted(self, points: Sequence[RecoveryPoint], held: Mapping[str, Sequence[str]]) -> tuple[Finding, ...]:
        """Ask S3 about the sets that the register holds: there are few."""
        sets = [p.identifier for p in points if p.kind is Kind.SET and p.identifier in held]
        named = {p: matters for p, matters in held.items() if names_a_point(p)}
        locked = {key for key in sets if self._keeper.wholly_held_in_s3(key)}
        return drifted(points, named, locked, lineage=self._lineage)

    def _vanished(self, points: Sequence[RecoveryPoint], now: datetime) -> tuple[Finding, ...]:
        """Compare with the last plan that saw everything. What cannot be compared is said, and asked again tomorrow."""
        try:
            return vanished(self._before(), points, self._policy, now)
        except Exception as error:  # noqa: BLE001  whatever it is: an early deletion must not go unseen because of it
            why = f"what was there before cannot be read, so nobody knows what has vanished since: {cause(error)}"
            return (Finding(_NOT_COMPARED, _latest(self._owner), why),)

    def _before(self) -> tuple[RecoveryPoint, ...]:
        """What the last plan with a complete inventory saw; nothing before the first. Raises when it cannot be read."""
        pointer = self._bucket.read_json(_latest(self._owner))
        if pointer is None:
            return ()
        document, swept = self._checked(self._bucket.read_json(pointer["plan"])), self._swept(pointer["plan"])
        seen = (point_from_document(d) for d in document["decisions"])
        return tuple(point for point in seen if point.identifier not in swept)

    def _swept(self, plan_key: str) -> frozenset[str]:
        result = self._bucket.read_json(_result_key(plan_key)) or {"outcomes": []}
        return frozenset(o["identifier"] for o in result["outcomes"] if o["state"] in {"deleted", "gone"})

    def _checked(self, document: Any) -> dict[str, Any]:
        if not isinstance(document, dict) or document.get("schema") != PLAN_SCHEMA:
            raise PlanNotActedOn(f"plan.schema must be {PLAN_SCHEMA}, got {str(document)[:80]!r}")
        if document.get("owner") != self._owner:
            raise PlanNotActedOn(f"plan.owner must be {self._owner!r}, got {document.get('owner')!r}")
        return document

    # --- the act

    def act(self, plan_key: str, *, ahead: bool = False) -> dict[str, Any]:
        """Guard what S3 would expire, then delete what the plan lets go. Returns and writes the result.

        In report mode, unconfirmed, or with a refused plan, nothing is deleted and the result says so. A repetition
        deletes what the first did not come to, and its result says of the rest what the first's said.

        ahead: as for `plan`; what the plan itself says of it does not count, because plans can be edited.

        Raises:
            PlanNotActedOn: the plan is not one of ours, or of a time that has not come.

        """
        if not plan_key.startswith(folder(self._owner)):
            raise PlanNotActedOn(f"plan must be under {folder(self._owner)}, got {plan_key!r}")
        document = self._checked(self._bucket.read_json(plan_key))
        now, clock = datetime.fromisoformat(document["now"]), self._clock()
        ahead_of_clock = not ahead and now > clock + AHEAD
        if ahead_of_clock and not document["refused"]:
            raise PlanNotActedOn(f"plan.now must not be ahead of the clock, {clock.isoformat()}, got {document['now']}")
        # The mode is looked at again: enforcement may have been switched off since the plan was made.
        mode = self._mode() if document["mode"] == ENFORCE else document["mode"]
        planned = [d for d in document["decisions"] if d["action"] == Action.DELETE.value]
        deletable = [] if document["refused"] or mode != ENFORCE else planned
        if len(deletable) > self._policy.sweep.max_deletions:
            raise PlanNotActedOn(f"sweep.max_deletions is {self._policy.sweep.max_deletions}, got {len(deletable)}")
        result: dict[str, Any] = {
            "schema": PLAN_SCHEMA,
            "owner": self._owner,
            "execution": document["execution"],
            "plan": plan_key,
            "mode": mode,
            "refused": document["refused"],
            "planned": len(planned),
            "guarded": [asdict(o) for o in self._guard(document, min(now, clock))],
        }
        outcomes = self._deleted(plan_key)
        self._record(plan_key, result, outcomes)
        for decision in deletable:
            outcome = self._delete(decision, now)
            if outcome.state != "gone" or outcome.identifier not in outcomes:
                outcomes[outcome.identifier] = asdict(outcome)
            # After each: what was deleted must be on record even if this function ends here.
            self._record(plan_key, result, outcomes)
        return result

    def _record(self, plan_key: str, result: dict[str, Any], outcomes: Mapping[str, Any]) -> None:
        result["outcomes"] = list(outcomes.values())
        self._bucket.write(_result_key(plan_key), json.dumps(result, sort_keys=True), once=False)

    def _deleted(self, plan_key: str) -> dict[str, Any]:
        """What an earlier try of the same plan deleted: a repetition must not turn it into `gone`."""
        earlier = self._bucket.read_json(_result_key(plan_key)) or {"outcomes": []}
        return {o["identifier"]: o for o in earlier["outcomes"] if o["state"] == "deleted"}

    def _guard(self, document: Mapping[str, Any], at: datetime) -> list[Outcome]:
        """Hold what the plan guards, each by itself, and again what is held: its store may not have followed."""
        why = "the last good set of its tier is past half of its retention"
        done: list[Outcome] = []
        for point in () if document["unknown"] else document["guard"]:
            try:
                (held,) = self._keeper.ensure(GUARD_MATTER, [point], who="retention manager", why=why, at=at)
                done.append(Outcome(held.point, "held" if held.ok else "failed", held.detail))
            except Exception as error:  # noqa: BLE001  one set that cannot be held does not keep the others from it
                done.append(Outcome(point, "failed", cause(error)))
        return done

    def release_guards(self, points: Sequence[str], *, now: datetime) -> tuple[Applied, ...]:
        """Release those guards of these that newer sets have replaced, which are looked at again first."""
        held = {p for hold in self._keeper.holds() if hold.matter == GUARD_MATTER for p in hold.points}
        at, done = min(now, self._clock()), []
        for point in sorted(held & set(points)):
            kept = self._still_needed(point, now)
            if kept:
                done.append(Applied(point, ok=True, detail=kept))
                continue
            why = "a newer set is good"
            done += self._keeper.release(GUARD_MATTER, [point], who="retention manager", why=why, at=at)
        return tuple(done)

    def _still_needed(self, guarded: str, now: datetime) -> str | None:
        """Why a guard stays, after reading the newest sets beside it again; None when they replace it."""
        prefix, cluster, database, started = parse_set_key(guarded)
        places = [set_key(prefix, each, database, now).rsplit("/", 2)[0] + "/" for each in self._lineage]
        found = sorted((key for place in places for key in set_keys(self._bucket, place)), key=_started)
        wanted = 1 + max(1, minimum_copies(self._policy, PREFIX_TIERS[Prefix(prefix)]))
        newest = [self._set(key) for key in found[-wanted:] if key != guarded]
        own = self._set(guarded) or RecoveryPoint(  # S3 may have hidden it already
            kind=Kind.SET,
            tier=PREFIX_TIERS[Prefix(prefix)],
            identifier=guarded,
            cluster_resource_id=cluster,
            created=started,
            status=Status.HIDDEN,
            series=database,
        )
        points = [own, *filter(None, newest)]
        again = decide(points, self._policy, {guarded: [GUARD_MATTER]}, now, lineage=self._lineage)
        return None if guarded in again.unguard else "stays held: no newer set is there and good"

    def _delete(self, decision: Mapping[str, Any], now: datetime) -> Outcome:
        identifier = str(decision["identifier"])
        try:
            planned = point_from_document(decision)
            fresh = self._reread(planned)
            if fresh is None:
                return Outcome(identifier, "gone", "it was gone before")
            refusal = self._refusal(fresh, decision, now)
            if refusal:
                return Outcome(identifier, "kept", refusal)
            left = self._delete_snapshot(fresh) if fresh.kind is Kind.SNAPSHOT else self._delete_set(fresh)
        except Exception as error:  # noqa: BLE001  one point that cannot be deleted does not keep the others
            return Outcome(identifier, "failed", cause(error))
        return Outcome(identifier, "failed", left) if left else Outcome(identifier, "deleted", str(decision["reason"]))

    def _refusal(self, fresh: RecoveryPoint, decision: Mapping[str, Any], now: datetime) -> str | None:
        """Decide again, about what is there now; why the point stays, or None."""
        copies = [self._reread(replace(fresh, identifier=str(other))) for other in decision["relies_on"]]
        held = by_point(self._keeper.holds(), [fresh.identifier])
        again = decide([fresh, *filter(None, copies)], self._policy, held, now, lineage=self._lineage)
        found = next(d for d in again.decisions if d.point.identifier == fresh.identifier)
        return None if found.action is Action.DELETE else f"{found.rule}: {found.reason}"

    def _reread(self, point: RecoveryPoint) -> RecoveryPoint | None:
        """The point as it is now, with its record read and its own holds looked at; None when it is gone."""
        return self._snapshot(point.identifier) if point.kind is Kind.SNAPSHOT else self._set(point.identifier)

    def _snapshot(self, arn: str) -> RecoveryPoint | None:
        name = arn.rpartition(":")[2]
        described = self._rds.snapshot(name)
        if described is None or described.get("DBClusterSnapshotArn") != arn:
            return None
        record = self._ledger.get(SNAPSHOT_RECORDS, self._owner, name)
        made = described.get("SnapshotCreateTime")
        ours = (
            record is not None
            and tags.tags_of(described).get(tags.EXECUTION) == record.execution
            and isinstance(made, datetime)
            and made >= record.created - _SKEW  # otherwise the name was used before
        )
        return _until_recorded(snapshot_point(described, self._owner, {name} if ours else ()), record)

    def _set(self, key: str) -> RecoveryPoint | None:
        paginator = self._bucket.client.get_paginator("list_object_versions")
        record = self._ledger.get(SET_RECORDS, self._owner, key)
        pages = list(paginator.paginate(Bucket=self._bucket.name, Prefix=key))
        found = next((p for p in set_points(pages, {key} if record else ()) if p.identifier == key), None)
        if found is None or found.status is Status.HIDDEN:
            return None
        tagged, good = True, verified(self._bucket, key)
        if found.status is Status.AVAILABLE:
            try:
                manifest = read_manifest(self._bucket, key)
            except (ManifestError, NoSuchObject):
                tagged = False
            else:
                tagged = manifest.owner == self._owner
                good = good if _holds(pages, manifest.archives) else Verified.FAILED
        found = replace(found, tagged=tagged, held=self._keeper.held_in_s3(key), verified=good)
        return _until_recorded(found, record)

    def _delete_snapshot(self, point: RecoveryPoint) -> str | None:
        name = point.identifier.rpartition(":")[2]
        self._rds.delete_snapshot(name)
        after = self._rds.snapshot(name)
        if after is not None and after.get("Status") != "deleting":
            return f"RDS took the deletion, and still shows it {after.get('Status')}"
        self._ledger.close(SNAPSHOT_RECORDS, self._owner, name)
        return None

    def _delete_set(self, point: RecoveryPoint) -> str | None:
        """Manifest first: what is half deleted must not pass for a backup."""
        keys = sorted(self._bucket.keys(point.identifier), key=lambda key: (not key.endswith(f"/{NAME}"), key))
        for key in keys:
            self._bucket.remove(key)
        left = self._bucket.keys(point.identifier)
        if left:
            return f"S3 took the deletions, and still shows {left[0]}"
        self._ledger.close(SET_RECORDS, self._owner, point.identifier)
        return None


def _holds(pages: Iterable[Mapping[str, Any]], archives: Iterable[Archive]) -> bool:
    """Whether S3 shows every archive as the manifest names it; a set without one of them is nothing to rely on."""
    versions = (version for page in pages for version in page.get("Versions", ()) if version["IsLatest"])
    shown = {version["Key"]: version for version in versions}
    return all(
        archive.key in shown
        and shown[archive.key]["Size"] == archive.bytes
        and archive.version_id in (None, shown[archive.key]["VersionId"])
        for archive in archives
    )


def _until_recorded(point: RecoveryPoint, record: CreationRecord | None) -> RecoveryPoint:
    """The record may declare a later expiry than the point itself."""
    declared = [moment for moment in (point.expires, record.expires if record else None) if moment is not None]
    return replace(point, expires=max(declared, default=None))


def _plan_fields(plan: Plan) -> dict[str, Any]:
    return {
        "refused": list(plan.refused),
        "guard": list(plan.guard),
        "unguard": list(plan.unguard),
        "decisions": [decision_document(d) for d in plan.decisions],
    }


def _latest(owner: str) -> str:
    """Says which plan is the last that saw everything."""
    return f"{folder(owner)}latest.json"


def _started(key: str) -> tuple[datetime, str]:
    return parse_set_key(key)[3], key


def _result_key(plan_key: str) -> str:
    return plan_key.removesuffix("plan.json") + "result.json"


def confirm(bucket: Bucket, owner: str, *, who: str, why: str, at: datetime) -> str:
    """Say yes a second time: from now on, plans of this owner may be acted on. Returns the key; it is written once."""
    for name, value in (("who", who), ("why", why)):
        if not value.strip():
            raise PlanNotActedOn(f"{name} must be a text of at least one letter, got {value!r}")
    document = {"schema": PLAN_SCHEMA, "owner": owner, "who": who, "why": why, "at": at.isoformat()}
    key = confirmation_key(owner)
    if bucket.read_json(key) is None:
        bucket.write(key, json.dumps(document, sort_keys=True), once=True)
    return key
