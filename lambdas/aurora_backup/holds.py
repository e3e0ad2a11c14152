"""Legal holds: who may not let what be deleted, why, and since when.

Holding and releasing are events, written once under `registers/holds/<owner>/`, where no lifecycle rule reaches, and
never replaced; what is in force follows from all of them (`in_force`, pure). The register comes first and is released
last, so that a crash leaves too much held, never too little. `HoldKeeper` also makes each store refuse the deletion by
itself, as far as it can (docs/retention.md says how far): a tag on RDS snapshots, S3 Object Lock on every version of a
set's objects. AWS Backup holds by vault, resource and time only (CreateLegalHold): `hold_in_aws_backup`.

An event is `{"schema": 1, "matter", "action": "placed" | "released", "at", "who", "why", "owner", "points": [...]}`.
Points are what `RecoveryPoint.identifier` says, letter for letter: ARNs of snapshots, keys of sets (`canonical`). An
entry of the register that names neither holds everything below it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

from aurora_backup import tags
from aurora_backup.errors import BackupError, ManifestError, cause
from aurora_backup.evidence import REGISTERS
from aurora_backup.manifest import parse_set_key, set_key
from aurora_backup.policy import Prefix
from aurora_backup.schedule import require_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aurora_backup.rds import Rds
    from aurora_backup.s3 import Bucket

SCHEMA = 1
ROOT = f"{REGISTERS}holds/"
_NO_LOCK = {"InvalidRequest", "NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"}
_LONGEST = 80
IN_AWS_BACKUP = (
    "aws-backup-hold:"  # with the id of a hold of AWS Backup's: a point of the register, in no store of ours
)


class HoldRefused(BackupError):  # noqa: N818  names say what happened, as in errors.py
    """A hold was not placed or released; the message names the field, the rule and the value."""


class HoldError(BackupError):
    """The register of holds cannot be read; whatever it might hold must stay."""


@dataclass(frozen=True, kw_only=True)
class HoldEvent:
    """One entry of the register. points: identifiers; a release without points releases the whole matter."""

    matter: str
    action: Literal["placed", "released"]
    at: datetime
    who: str
    why: str
    owner: str
    points: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("matter", "who", "why", "owner"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise HoldRefused(f"{name} must be a text of at least one letter, got {value!r}")
        if len(self.matter) > _LONGEST or tags.value(self.matter) != self.matter:
            raise HoldRefused(
                f"matter must be at most {_LONGEST} letters, digits, spaces and . : / = + @ - _, got {self.matter!r}"
            )
        if self.action not in {"placed", "released"}:
            raise HoldRefused(f"action must be placed or released, got {self.action!r}")
        if self.action == "placed" and not self.points:
            raise HoldRefused("points must name at least one recovery point, got none")
        object.__setattr__(self, "at", require_utc(self.at, "at"))
        object.__setattr__(self, "points", tuple(sorted({canonical(point) for point in self.points})))

    @property
    def key(self) -> str:
        """The object's key: events of one owner sort by time."""
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()[:12]
        return f"{prefix(self.owner)}{self.at:%Y%m%dT%H%M%S.%fZ}-{digest}.json"

    def to_json(self) -> str:
        """The document described at the top of this module."""
        return json.dumps({"schema": SCHEMA, **asdict(self), "at": self.at.isoformat()}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read an event strictly. Raises HoldError: what cannot be read might hold anything."""
        try:
            data = json.loads(text)
            if data.pop("schema") != SCHEMA or set(data) != {f.name for f in fields(cls)}:
                raise HoldError(f"a hold must have schema {SCHEMA} and exactly its keys, got {sorted(data)}")
            points = tuple(str(point) for point in data.pop("points"))
            return cls(**{**data, "at": datetime.fromisoformat(data["at"])}, points=points)
        except (ValueError, TypeError, KeyError, AttributeError, HoldRefused) as error:
            raise HoldError(f"a hold cannot be read: {error}") from None


@dataclass(frozen=True)
class Hold:
    """A matter in force: who placed it first, why, and all points that it holds now."""

    matter: str
    since: datetime
    who: str
    why: str
    points: tuple[str, ...]


def prefix(owner: str) -> str:
    """Where an owner's events are."""
    return f"{ROOT}{quote(owner, safe='')}/"


def in_force(events: Iterable[HoldEvent]) -> tuple[Hold, ...]:
    """What holds now, sorted by matter. At the same instant a placing counts after a releasing: it keeps more."""
    first: dict[str, HoldEvent] = {}
    points: defaultdict[str, set[str]] = defaultdict(set)
    for event in sorted(events, key=lambda e: (e.at, e.action == "placed", e.key)):
        if event.action == "placed":
            first.setdefault(event.matter, event)
            points[event.matter] |= set(event.points)
            continue
        points[event.matter] -= set(event.points) if event.points else set(points[event.matter])
        if not points[event.matter]:
            first.pop(event.matter, None)
    return tuple(
        Hold(matter, first[matter].at, first[matter].who, first[matter].why, tuple(sorted(held)))
        for matter, held in sorted(points.items())
        if held
    )


def by_point(holds: Iterable[Hold], seen: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """Identifier of a point -> the matters that hold it: what `retention.decide` takes.

    seen: identifiers of points that exist, for entries that name no point and hold all below them.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for hold in holds:
        for point in hold.points:
            found[point].add(hold.matter)
    wide = {p: found[p] for p in found if not names_a_point(p) and not p.startswith(IN_AWS_BACKUP)}
    for identifier in seen if wide else ():
        for point, matters in wide.items():
            if identifier.startswith(point):
                found[identifier] |= matters
    return {point: tuple(sorted(matters)) for point, matters in found.items()}


def canonical(point: str) -> str:
    """The one way to write a point: of a set, its key as `set_key` makes it; anything else stays as it is."""
    if _is_arn(point) or point.startswith(IN_AWS_BACKUP):
        return point
    try:
        return set_key(*parse_set_key(point))
    except ManifestError:
        return point


def names_a_point(point: str) -> bool:
    """Whether the store can hold exactly this; an entry of the register that does not holds all below it."""
    return _is_arn(point) or _is_set(point)


def _is_set(key: str) -> bool:
    try:
        return parse_set_key(key)[0] in {prefix.value for prefix in Prefix}
    except ManifestError:
        return False


@dataclass(frozen=True)
class Applied:
    """What became of one point in its store. ok: the store itself now refuses (or, released, allows) its deletion."""

    point: str
    ok: bool
    detail: str


class HoldKeeper:
    """The register of one owner in its bucket, and the stores that can refuse by themselves."""

    def __init__(self, *, bucket: Bucket, rds: Rds, owner: str) -> None:
        self._bucket, self._rds, self._owner = bucket, rds, owner

    def events(self) -> tuple[HoldEvent, ...]:
        """Every event, in order.

        Raises:
            HoldError: one cannot be read, so that nobody knows what is held.

        """
        return tuple(HoldEvent.from_json(self._bucket.read(key)) for key in self._bucket.keys(prefix(self._owner)))

    def holds(self) -> tuple[Hold, ...]:
        """What holds now. Raises as `events` does."""
        return in_force(self.events())

    def place(self, matter: str, points: Sequence[str], *, who: str, why: str, at: datetime) -> tuple[Applied, ...]:
        """Hold points: first in the register, then in each store. A repetition with the same time changes nothing.

        Raises:
            HoldRefused: a field is malformed, a point does not exist, or the matter was released later than `at`; then
                nothing is held.

        """
        event = HoldEvent(
            matter=matter, action="placed", at=at, who=who, why=why, owner=self._owner, points=tuple(points)
        )
        for point in event.points:
            _holdable(point)
            if not (self._described(point) if _is_arn(point) else self._versions(point)):
                raise HoldRefused(f"points must exist, and {point} does not")
        then = by_point(in_force((*self.events(), event)))
        if late := [point for point in event.points if matter not in then.get(point, ())]:
            raise HoldRefused(
                f"at must be after the last release of {late[0]} by {matter!r}, got {event.at.isoformat()}"
            )
        self._bucket.write(event.key, event.to_json(), once=True)
        matters = by_point(self.holds())
        return tuple(
            self._apply(point, matters[point])
            if matter in matters.get(point, ())
            else Applied(point, ok=False, detail="it was released meanwhile")
            for point in event.points
        )

    def ensure(self, matter: str, points: Sequence[str], *, who: str, why: str, at: datetime) -> tuple[Applied, ...]:
        """Hold what the matter does not hold yet, and make each store follow again where it does.

        Raises HoldRefused as `place` does.
        """
        matters = by_point(self.holds())
        new = [point for point in points if matter not in matters.get(point, ())]
        done = self.place(matter, new, who=who, why=why, at=at) if new else ()
        return done + tuple(self._apply(point, matters[point]) for point in points if point not in new)

    def release(
        self, matter: str, points: Sequence[str] = (), *, who: str, why: str, at: datetime
    ) -> tuple[Applied, ...]:
        """Release points of a matter, or all: first in each store, then, when all stores did it, in the register.

        A point that another matter holds too stays held in its store.

        Raises:
            HoldRefused: a field is malformed, the matter is not in force, it does not hold a point, or it was placed at
                or after `at`.

        """
        points = [canonical(point) for point in points]
        current = {hold.matter: hold for hold in self.holds()}
        if matter not in current:
            raise HoldRefused(f"matter must be in force to be released, and {matter!r} is not: {sorted(current)}")
        strangers = sorted(set(points) - set(current[matter].points))
        if strangers:
            raise HoldRefused(f"points must be held by {matter!r}, and {strangers[0]} is not")
        released = tuple(points) or tuple(p for p in current[matter].points if not p.startswith(IN_AWS_BACKUP))
        theirs = [p for p in released or current[matter].points if p.startswith(IN_AWS_BACKUP)]
        if theirs:
            hold_id = theirs[0].removeprefix(IN_AWS_BACKUP)
            raise HoldRefused(f"{hold_id} is a hold of AWS Backup's: release it with --aws-backup --hold-id {hold_id}")
        event = HoldEvent(matter=matter, action="released", at=at, who=who, why=why, owner=self._owner, points=released)
        then = by_point(in_force((*self.events(), event)))
        if early := [point for point in event.points if matter in then.get(point, ())]:
            raise HoldRefused(f"at must be after the placing of {early[0]} by {matter!r}, got {event.at.isoformat()}")
        left = by_point((hold for hold in current.values() if hold.matter != matter), event.points)
        done = tuple(self._let_go(point, left.get(point, ())) for point in event.points)
        if all(each.ok for each in done):
            self._bucket.write(event.key, event.to_json(), once=True)
        return done

    def register_in_aws_backup(
        self, action: Literal["placed", "released"], hold_id: str, *, matter: str, who: str, why: str, at: datetime
    ) -> str:
        """Keep as evidence that AWS Backup was told to hold, or to release; returns the event's key."""
        if action == "released":
            self.require_in_aws_backup(hold_id, matter)
        event = HoldEvent(
            matter=matter,
            action=action,
            at=at,
            who=who,
            why=why,
            owner=self._owner,
            points=(IN_AWS_BACKUP + hold_id,),
        )
        self._bucket.write(event.key, event.to_json(), once=True)
        return event.key

    def require_in_aws_backup(self, hold_id: str, matter: str) -> None:
        """Raise HoldRefused unless this hold of AWS Backup's is this matter's."""
        matters = by_point(self.holds()).get(IN_AWS_BACKUP + hold_id, ())
        if matter not in matters:
            whose = ", ".join(matters) or "no matter in force"
            raise HoldRefused(f"hold_id must be a hold of matter {matter!r}, got {hold_id}, which is of {whose}")

    def held_in_s3(self, key: str) -> bool:
        """Whether any version of a set's objects is under an Object Lock legal hold."""
        return any(self._lock_of(item) for item in self._versions(key))

    def wholly_held_in_s3(self, key: str) -> bool:
        """Whether every version of a set's objects is, and there is one."""
        versions = self._versions(key)
        return bool(versions) and all(self._lock_of(item) for item in versions)

    def _described(self, arn: str) -> dict[str, Any] | None:
        """The snapshot of exactly this ARN: another account's or Region's may have the same name."""
        found = self._rds.snapshot(_name(arn))
        return found if found and found.get("DBClusterSnapshotArn") == arn else None

    def _versions(self, key: str) -> list[dict[str, Any]]:
        """Every version of every object of a set, those behind delete markers too."""
        pages = self._bucket.client.get_paginator("list_object_versions").paginate(
            Bucket=self._bucket.name, Prefix=key.rstrip("/") + "/"
        )
        return [version for page in pages for version in page.get("Versions", ())]

    def _lock_of(self, version: dict[str, Any]) -> bool:
        from botocore.exceptions import ClientError

        try:
            answer = self._bucket.client.get_object_legal_hold(
                Bucket=self._bucket.name, Key=version["Key"], VersionId=version["VersionId"]
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _NO_LOCK:
                return False
            raise
        return bool((answer.get("LegalHold") or {}).get("Status") == "ON")

    def _apply(self, point: str, matters: Sequence[str]) -> Applied:
        """Make the store agree with the register: these matters hold the point, or none does."""
        try:
            detail = self._tag(point, matters) if _is_arn(point) else self._lock(point, matters)
        except Exception as error:  # noqa: BLE001  the register holds it anyway; the caller is told
            return Applied(point, ok=False, detail=cause(error))
        return Applied(point, ok=True, detail=detail)

    def _let_go(self, point: str, matters: Sequence[str]) -> Applied:
        """Release in the store too; what lies below an entry that names no point is released by its own name."""
        if names_a_point(point):
            return self._apply(point, matters)
        return Applied(point, ok=True, detail="released in the register; place and release what is below it by name")

    def _tag(self, arn: str, matters: Sequence[str]) -> str:
        described = self._described(arn)
        if matters and (described is None or described.get("Status") == "deleting"):
            raise HoldError(f"the snapshot is {'being deleted' if described else 'gone'}")
        if described is None:
            return "the snapshot is gone"
        if matters:
            self._rds.add_tags(arn, {tags.LEGAL_HOLD: tags.value(" + ".join(matters))})
        else:
            self._rds.remove_tags(arn, [tags.LEGAL_HOLD])
        described = self._described(arn) or {}
        if matters and described.get("Status") == "deleting":
            raise HoldError("the snapshot is being deleted")
        if (tags.LEGAL_HOLD in tags.tags_of(described)) != bool(matters):
            raise HoldError(f"RDS took the change of the tag {tags.LEGAL_HOLD}, and does not show it")
        return f"tag {tags.LEGAL_HOLD} {'set' if matters else 'removed'}"

    def _lock(self, key: str, matters: Sequence[str]) -> str:
        status = "ON" if matters else "OFF"
        versions = self._versions(key)
        if matters and not versions:
            raise HoldError("the set is gone")
        for version in versions:
            self._bucket.client.put_object_legal_hold(
                Bucket=self._bucket.name,
                Key=version["Key"],
                VersionId=version["VersionId"],
                LegalHold={"Status": status},
            )
        wrong = [v for v in versions if self._lock_of(v) is not bool(matters)]
        if wrong:
            raise HoldError(f"S3 took the legal hold, and does not show it on {wrong[0]['Key']}")
        return f"Object Lock legal hold {status} on {len(versions)} versions"


def _is_arn(point: str) -> bool:
    return point.startswith("arn:")


def _holdable(point: str) -> None:
    if _is_arn(point) and ":cluster-snapshot:" not in point:
        raise HoldRefused(f"points must be cluster snapshots or dump sets, got {point}")
    if ":awsbackup:" in point:
        raise HoldRefused(f"{point} is AWS Backup's, which holds by vault, resource and time only: use --aws-backup")
    if ":cluster-snapshot:rds:" in point:
        raise HoldRefused(f"{point} is automated and expires with its cluster's retention: copy it, and hold the copy")
    if not _is_arn(point) and not _is_set(point):
        raise HoldRefused(f"points must be whole keys of sets, <prefix>/<cluster>/<database>/<time>/, got {point}")


def _name(arn: str) -> str:
    return arn.rpartition(":")[2]


def hold_in_aws_backup(
    backup: Any,
    *,
    matter: str,
    why: str,
    vaults: Sequence[str],
    resources: Sequence[str],
    since: datetime,
    to: datetime,
) -> str:
    """Hold in AWS Backup what the vaults hold of the resources between two times; returns the hold's id.

    AWS Backup cannot hold one recovery point, nor what will be made later. The same arguments give the same hold.
    """
    if require_utc(since, "since") > require_utc(to, "to"):
        raise HoldRefused(f"since must not be after to, got {since.isoformat()} and {to.isoformat()}")
    selection: dict[str, Any] = {"DateRange": {"FromDate": since, "ToDate": to}}
    selection |= {"VaultNames": list(vaults)} if vaults else {}
    selection |= {"ResourceIdentifiers": list(resources)} if resources else {}
    token = hashlib.sha256(json.dumps([matter, selection], default=str, sort_keys=True).encode()).hexdigest()
    answer = backup.create_legal_hold(
        Title=matter, Description=why, IdempotencyToken=token, RecoveryPointSelection=selection
    )
    return str(answer["LegalHoldId"])


def aws_backup_holds(backup: Any) -> list[dict[str, str]]:
    """AWS Backup's own holds: `[{id, title, status, description}]`, every page."""
    pages = backup.get_paginator("list_legal_holds").paginate()
    return [
        {
            "id": str(hold["LegalHoldId"]),
            "title": str(hold.get("Title", "")),
            "status": str(hold.get("Status", "")),
            "description": str(hold.get("Description", "")),
        }
        for page in pages
        for hold in page.get("LegalHolds", ())
    ]


def release_in_aws_backup(backup: Any, hold_id: str, *, why: str) -> None:
    """Cancel one of AWS Backup's holds. AWS keeps its record."""
    backup.cancel_legal_hold(LegalHoldId=hold_id, CancelDescription=why)
