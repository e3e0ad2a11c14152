"""Retention: what AWS is told to keep, and what each recovery point says of itself, against the policy. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_backup.access_documents import glob
from aurora_backup.compliance import CheckSpec, Expected, Found, Level, Tally, cluster_of
from aurora_backup.evidence import REGISTERS
from aurora_backup.ledger import PREFIX as LEDGER
from aurora_backup.policy import Tier
from aurora_backup.retention import LATE

if TYPE_CHECKING:
    from aurora_backup.compliance_facts import Node, Reader
    from aurora_backup.policy import LifecycleRule


def _has_snapshot_rules(expected: Expected) -> bool:
    return bool(expected.policy.snapshot_rules())


def _opt_in(read: Reader, _expected: Expected) -> Found:
    opted_in = read.observation("region-settings").flag("Aurora")
    return (
        Tally()
        .need(opted_in, "AWS Backup is not opted in for Aurora in this Region: it skips the cluster, silently")
        .conclude("AWS Backup is opted in for Aurora in this Region")
    )


def _cluster(read: Reader, expected: Expected) -> Found:
    cluster, wanted = cluster_of(read, expected), expected.policy.automated.keep_days
    days, tally = cluster.number("retention_days"), Tally()
    tally.need(days >= wanted, f"BackupRetentionPeriod is {days} days, the policy asks for {wanted}")
    tally.need(cluster.flag("copy_tags"), "CopyTagsToSnapshot is false: snapshots will not say whose they are")
    return tally.conclude(f"BackupRetentionPeriod is {days} days, and tags are copied to snapshots")


def _deletion_protection(read: Reader, expected: Expected) -> Found:
    protected = cluster_of(read, expected).flag("deletion_protection")
    return (
        Tally()
        .need(protected, "DeletionProtection is off: the cluster can be deleted by one call")
        .conclude("DeletionProtection is on")
    )


def _plan(read: Reader, expected: Expected) -> Found:
    tally = Tally()
    wanted = {rule.name: rule for rule in expected.policy.snapshot_rules()}
    found: set[str] = set()

    def look(rule: Node) -> str | None:
        name = rule.text("name")
        found.add(name)
        if name in wanted:
            return _rule(rule, expected.vault or "", wanted[name].schedule, wanted[name].delete_after_days)
        return None if name in expected.rules else f"the plan has a rule {name}, which nobody declared"

    tally.look(read.observation("plan").each("rules"), look)
    tally.problems += [f"the plan has no rule {name}" for name in (*wanted, *expected.rules) if name not in found]
    arn = cluster_of(read, expected).text("arn")
    doubts: list[str] = []
    certain = [_selects(selection, arn, doubts) for selection in read.observation("selections").each()]
    tally.need(any(certain), "; ".join(doubts) or f"the plan's selections do not name {arn}")
    return tally.conclude("the plan's rules are the declared ones, and it selects the cluster")


def _rule(rule: Node, vault: str, schedule: str, days: int) -> str | None:
    drift = []
    if rule.is_null("delete_after_days"):
        drift.append(f"never deletes, the policy says after {days} days")
    elif rule.number("delete_after_days") != days:
        drift.append(f"deletes after {rule.number('delete_after_days')} days, the policy says {days}")
    if rule.text("schedule") != schedule:
        drift.append(f"runs at {rule.text('schedule')}, the policy says {schedule}")
    if rule.text("vault") != vault:
        drift.append(f"writes into the vault {rule.text('vault')}, not into {vault}")
    return f"rule {rule.text('name')} {' and '.join(drift)}" if drift else None


def _selects(selection: Node, arn: str, doubts: list[str]) -> bool:
    """Whether a selection certainly takes the cluster. One that names it and may leave it out is a doubt."""
    if not any(glob(pattern).fullmatch(arn) for pattern in selection.texts("resources")):
        return False
    left_out = [pattern for pattern in selection.texts("not_resources") if glob(pattern).fullmatch(arn)]
    narrowed = selection.texts("narrowed_by")
    if left_out:
        doubts.append(f"the selection {selection.text('name')} leaves out {', '.join(left_out)}")
    if narrowed:
        doubts.append(
            f"the selection {selection.text('name')} takes the cluster only by its tags: {', '.join(narrowed)}"
        )
    return not (left_out or narrowed)


def _lock(read: Reader, expected: Expected) -> Found:
    vault, tally = read.observation("vault"), Tally()
    tally.need(vault.flag("locked"), f"vault {vault.text('name')} is not locked")
    bounds = {name: None if vault.is_null(name) else vault.number(name) for name in ("min_days", "max_days")}
    for (name, found), declared in zip(bounds.items(), expected.lock_days, strict=False):
        tally.need(found == declared, f"{name} of the lock of {vault.text('name')} is {found}, declared is {declared}")
    low, high = bounds.values()
    for rule in expected.policy.snapshot_rules():
        days = rule.delete_after_days
        tally.need(low is None or days >= low, f"rule {rule.name} is below the lock's minimum of {low} days")
        tally.need(high is None or days <= high, f"rule {rule.name} is above the lock's maximum of {high} days")
    return tally.conclude(f"vault {vault.text('name')} is locked as declared, with room for every rule")


def _lifecycle(read: Reader, expected: Expected) -> Found:
    wanted = {rule.prefix: rule for rule in expected.policy.lifecycle_rules()}
    kept: set[str] = set()

    def look(rule: Node) -> str | None:
        """Every enabled rule that does something to objects is the policy's own, or keeps away from its prefixes."""
        does = _does(rule)
        if rule.text("status") != "Enabled" or not does:
            return None
        prefix, narrowed = rule.words("prefix"), rule.texts("narrowed_by")
        if prefix in wanted and not narrowed:
            kept.add(prefix)
            return _lifecycle_rule(rule, wanted[prefix])
        if reached := [own for own in (*wanted, LEDGER, REGISTERS) if own.startswith(prefix) or prefix.startswith(own)]:
            among = f" ({', '.join(narrowed)})" if narrowed else ""
            return f"another rule, for {prefix or 'everything'!r}{among}, {' and '.join(does)} of {', '.join(reached)}"
        return None

    tally = Tally().look(read.observation("bucket-lifecycle").each(), look)
    for prefix, rule in wanted.items():
        tally.need(prefix in kept, f"no rule expires {prefix}, the policy says after {rule.expire_days} days")
    return tally.conclude("S3 expires each prefix when the policy says, and no other rule reaches them")


def _does(rule: Node) -> list[str]:
    """What a rule does to objects, in words; [] for one that only aborts uploads or removes delete markers."""
    days, date = rule.is_null("expire_days"), rule.is_null("expire_date")
    versions = rule.is_null("noncurrent_days")
    return [
        *([] if days else [f"expires objects after {rule.number('expire_days')} days"]),
        *([] if date else [f"expires objects on {rule.text('expire_date')}"]),
        *([] if versions else [f"removes old versions after {rule.number('noncurrent_days')} days"]),
        *(f"moves objects to {move.text('storage_class')}" for move in rule.each("transitions")),
        *(f"moves old versions to {move.text('storage_class')}" for move in rule.each("noncurrent_transitions")),
    ]


def _lifecycle_rule(rule: Node, wanted: LifecycleRule) -> str | None:
    drift = []
    if not rule.is_null("expire_date"):
        drift.append(f"expires on {rule.text('expire_date')}, the policy says after {wanted.expire_days} days")
    elif rule.is_null("expire_days"):
        drift.append(f"never expires, the policy says after {wanted.expire_days} days")
    elif rule.number("expire_days") != wanted.expire_days:
        drift.append(f"expires after {rule.number('expire_days')} days, the policy says {wanted.expire_days}")
    noncurrent = None if rule.is_null("noncurrent_days") else rule.number("noncurrent_days")
    if noncurrent != wanted.noncurrent_days:
        drift.append(f"removes old versions after {noncurrent} days, the policy says {wanted.noncurrent_days}")
    moves = [
        (t.number("days") if t.is_null("date") else f"on {t.text('date')}", t.text("storage_class"))
        for t in rule.each("transitions")
    ]
    if sorted(moves, key=str) != sorted(((t.days, t.storage_class.value) for t in wanted.transitions), key=str):
        drift.append(f"moves to colder storage as {moves}, not as the policy says")
    if old := [move.text("storage_class") for move in rule.each("noncurrent_transitions")]:
        drift.append(f"moves old versions to {', '.join(old)}, the policy leaves them where they are")
    return f"{wanted.prefix} {' and '.join(drift)}" if drift else None


def _versions(read: Reader, _expected: Expected) -> Found:
    tally = Tally()
    status = read.observation("bucket-versioning").words("status")
    tally.need(status == "Enabled", f"versioning of the bucket is {status or 'off'}: an overwritten archive is lost")
    tally.need(
        read.observation("bucket-lock").flag("enabled"),
        "Object Lock of the bucket is off: evidence and held sets can be deleted",
    )
    return tally.conclude("the bucket keeps versions, and Object Lock is on")


def _points(read: Reader, expected: Expected) -> Found:
    now, policy = read.now, expected.policy

    def look(point: Node) -> str | None:
        name, created = point.text("arn"), point.moment("created")
        if point.is_null("tier"):
            return None  # made by hand: no rule of the policy speaks of it
        keep = policy.keep(Tier(point.text("tier")))
        if keep is None:
            return f"{name} is of the tier {point.text('tier')}, which the policy does not make"
        until = keep.until(created)
        if point.is_null("delete_at"):
            return f"{name} has no expiry, the policy says {until:%Y-%m-%d}"
        delete_at = point.moment("delete_at")
        if delete_at < until - LATE:
            return f"{name} expires on {delete_at:%Y-%m-%d}, the policy keeps it until {until:%Y-%m-%d}"
        if delete_at + LATE < now:
            return f"{name} had to expire on {delete_at:%Y-%m-%d}, and is still there"
        return None

    tally = Tally().look(read.observation("recovery-points").each(), look)
    return tally.conclude(f"{tally.examined} recovery points expire no earlier than the policy says")


RETENTION = (
    CheckSpec(
        id="retention.opt-in",
        title="AWS Backup is opted in for Aurora in the Region",
        level=Level.DECLARED,
        remedy='aws backup update-region-settings --resource-type-opt-in-preference "Aurora=true".',
        run=_opt_in,
        applies=_has_snapshot_rules,
    ),
    CheckSpec(
        id="retention.cluster",
        title="The cluster keeps its automated backups as long as the policy says",
        level=Level.DECLARED,
        remedy="Deploy the stack again, or aws rds modify-db-cluster --backup-retention-period DAYS "
        "--copy-tags-to-snapshot. Days that are gone do not come back.",
        run=_cluster,
    ),
    CheckSpec(
        id="retention.deletion-protection",
        title="The cluster is protected from deletion",
        level=Level.DECLARED,
        remedy="aws rds modify-db-cluster --deletion-protection, and find out from CloudTrail who switched it off.",
        run=_deletion_protection,
        applies=lambda e: e.deletion_protection,
    ),
    CheckSpec(
        id="retention.plan",
        title="The backup plan's rules are the declared ones, and it selects the cluster",
        level=Level.DECLARED,
        remedy="Deploy the stack again: the plan was changed outside it.",
        run=_plan,
        applies=_has_snapshot_rules,
    ),
    CheckSpec(
        id="retention.vault-lock",
        title="The vault is locked as declared, with room for every rule",
        level=Level.DECLARED,
        remedy="Deploy the stack again; a governance lock was removed, or the policy changed beyond the lock's bounds.",
        run=_lock,
        applies=lambda e: e.vault_locked and _has_snapshot_rules(e),
    ),
    CheckSpec(
        id="retention.lifecycle",
        title="S3 expires each prefix when the policy says, and no other rule reaches them",
        level=Level.DECLARED,
        remedy="Deploy the stack again, today: S3 expires objects at the next midnight UTC. Sets that are gone are in "
        "old versions for the noncurrent days.",
        run=_lifecycle,
    ),
    CheckSpec(
        id="retention.versions",
        title="The bucket keeps old versions, and Object Lock is on",
        level=Level.DECLARED,
        remedy="Switch versioning on again (aws s3api put-bucket-versioning), and Object Lock with it.",
        run=_versions,
    ),
    CheckSpec(
        id="retention.recovery-points",
        title="Each recovery point expires no earlier than the policy says, and no later",
        level=Level.OBSERVED,
        remedy="aws backup update-recovery-point-lifecycle for each named point, then find what shortened it.",
        run=_points,
        applies=_has_snapshot_rules,
    ),
)
