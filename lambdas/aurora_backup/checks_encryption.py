"""Encryption: everything that holds the data lies under a customer key, and that key is there to stay. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from aurora_backup.access_documents import exceptions_to_denial, refuses_plain_http
from aurora_backup.compliance import CheckSpec, Expected, Found, Level, Tally, cluster_of, unknown
from aurora_backup.compliance_facts import FRESH, FactMissing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from aurora_backup.compliance_facts import Node, Reader

DESTRUCTIVE = ("kms:ScheduleKeyDeletion", "kms:DisableKey")
RECENT = timedelta(days=8)  # how far back each written object is looked at: a report is daily, so for a week
OVERLAP = timedelta(days=2)  # and from so long before the last report, when that is longer ago
MISSING = "missing"  # the state of a key that KMS does not know
_KMS = "aws:kms"


def keys_of(read: Reader) -> dict[str, Node]:
    """Every key that the other answers named, by that name."""
    return {key.text("arn"): key for key in read.observation("keys").each()}


def state_of(key: Node) -> str:
    """A key's state, or "missing". Raises FactMissing: it could not be described."""
    if not key.is_null("problem"):
        raise FactMissing(f"{key.text('arn')} could not be described: {key.text('problem')}")
    return key.text("state")


def _under(what: str, key: str, keys: Mapping[str, Node]) -> str | None:
    """The problem with something that lies under a key. Raises FactMissing: that key could not be described."""
    if key in keys and state_of(keys[key]) == MISSING:
        return f"{what} is under {key}, which KMS does not know: nothing can read it"
    customer = key in keys and keys[key].text("manager") == "CUSTOMER"
    return None if customer else f"{what} is under {key}, which is not known to be a customer key"


def _cluster(read: Reader, expected: Expected) -> Found:
    cluster, tally = cluster_of(read, expected), Tally()
    tally.need(cluster.flag("encrypted"), f"{cluster.text('identifier')}: StorageEncrypted is false")
    if not tally.problems:
        keys = keys_of(read)
        tally.look([cluster], lambda c: _under(c.text("identifier"), c.text("key"), keys))
    return tally.conclude("StorageEncrypted is true, under a customer key")


def _snapshots(read: Reader, expected: Expected) -> Found:
    keys = keys_of(read)
    tally = Tally().look(read.observation("snapshots").each(), lambda point: _unprotected(point, keys))
    if expected.vault:
        tally.look(read.observation("recovery-points").each(), lambda point: _unprotected(point, keys))
    return tally.conclude(f"{tally.examined} snapshots and recovery points are under customer keys")


def _unprotected(point: Node, keys: Mapping[str, Node]) -> str | None:
    name = point.text("arn")
    return _under(name, point.text("key"), keys) if point.flag("encrypted") else f"{name} is not encrypted"


def _copies(read: Reader, _expected: Expected) -> Found:
    keys = keys_of(read)
    tally = Tally().look(read.observation("copies").each(), lambda point: _unprotected(point, keys))
    return tally.conclude(f"{tally.examined} copies in other vaults are under customer keys")


def _bucket(read: Reader, expected: Expected) -> Found:
    found, tally = read.observation("bucket-encryption"), Tally()
    algorithm = found.text("algorithm")
    tally.need(algorithm.startswith(_KMS), f"the bucket's default encryption is {algorithm}, not {_KMS}")
    if not tally.problems:
        key = found.text("key")
        tally.need(key == expected.key_arn, f"the bucket's default key is {key}, not {expected.key_arn}")
    return tally.conclude(f"the bucket's default encryption is {algorithm} under the backup key")


def _objects(read: Reader, expected: Expected) -> Found:
    tally = Tally()

    def newest(item: Node) -> str | None:
        looked_at(item)
        if item.is_null("found"):
            raise FactMissing(f"{item.text('key')} is not there")  # integrity.archives says that this is wrong
        return _weak(item.text("key"), item.at("found"), expected)

    def written(group: Node) -> str | None:
        count, some = group.number("objects"), group.texts("some")
        if not 0 < len(set(some)) == len(some) <= count:
            raise FactMissing(f"{group.path} must name some of its {count} objects once, and names {len(some)}")
        tally.examined += count - 1
        more = f" and {count - len(some)} more" if count > len(some) else ""
        return _weak(", ".join(some) + more, group, expected)

    def unread(item: Node) -> str | None:
        looked_at(item)
        raise FactMissing(f"{item.path}.problem must say why it was not looked at")

    def look_at_newest() -> int:
        stored = read.observation("objects").each()
        tally.look(stored, newest)
        return len(stored)

    def look_at_recent() -> datetime:
        recent = read.observation("recent-objects")
        groups = recent.each("groups")
        tally.look(groups, written).look(recent.each("unread"), unread)
        since = recent.moment("since")
        if not groups:  # a report writes its facts every day
            tally.unknown.append(f"nothing was found that was written since {since.isoformat()}")
        previous = read.observation("previous")
        first = previous.is_null("created") and not previous.each("points") and not previous.each("documents")
        wanted = recent_since(read.now, None if first else previous.moment("created"))
        if abs(since - wanted) > FRESH:
            tally.unknown.append(
                f"what was written since {wanted.isoformat()} was to be looked at, and was since {since.isoformat()}"
            )
        return since

    count, since = 0, read.now
    # What one of the two shows to be wrong is wrong without the other.
    try:
        count = look_at_newest()
    except FactMissing as missing:
        tally.unknown.append(str(missing))
    try:
        since = look_at_recent()
    except FactMissing as missing:
        tally.unknown.append(str(missing))
    return tally.conclude(
        f"{tally.examined - count} objects that were written since {since:%Y-%m-%d %H:%M} UTC, and {count} of the "
        "newest sets, are under the backup key"
    )


def recent_since(now: datetime, last_report: datetime | None) -> datetime:
    """Since when what was written is to be looked at: reports may have been missing for longer than usual."""
    usual = now - RECENT
    return usual if last_report is None else min(usual, last_report - OVERLAP)


def looked_at(item: Node) -> None:
    """Raises FactMissing: S3 refused to say anything of a stored object."""
    if not item.is_null("problem"):
        raise FactMissing(f"{item.text('key')} was not looked at: {item.text('problem')}")


def _weak(what: str, found: Node, expected: Expected) -> str | None:
    """The problem with objects that are encrypted as `found` says."""
    if found.is_null("encryption") or not found.text("encryption").startswith(_KMS):
        how = "nothing" if found.is_null("encryption") else found.text("encryption")
        return f"not under a KMS key but {how}: {what}"
    key = found.text("key")
    return None if key == expected.key_arn else f"under {key}, not the backup key: {what}"


def _vault(read: Reader, _expected: Expected) -> Found:
    vault, keys = read.observation("vault"), keys_of(read)
    tally = Tally().look([vault], lambda v: _under(f"vault {v.text('name')}", v.text("key"), keys))
    return tally.conclude(f"vault {vault.text('name')} is under a customer key")


def _topic(read: Reader, _expected: Expected) -> Found:
    topic = read.observation("topic")
    if topic.is_null("key"):
        return Tally().need(False, "the alert topic is not encrypted").conclude("")
    keys = keys_of(read)
    tally = Tally().look([topic], lambda t: _under("the alert topic", t.text("key"), keys))
    return tally.conclude("the alert topic is under a customer key")


def _logs(read: Reader, _expected: Expected) -> Found:
    def look(group: Node) -> str | None:
        name = group.text("name")
        return None if not group.is_null("key") and group.text("key") else f"{name} is not under a customer key"

    tally = Tally().look(read.observation("log-groups").each(), look)
    return tally.conclude(f"{tally.examined} log groups are under customer keys")


def _key_state(read: Reader, expected: Expected) -> Found:
    key = keys_of(read).get(expected.key_arn)
    if key is None:
        return unknown(f"{expected.key_arn} was not described")
    tally = Tally()
    if state_of(key) == MISSING:
        return tally.need(False, "KMS does not know the backup key: no backup can be read").conclude("")
    tally.need(key.text("manager") == "CUSTOMER", "the backup key is not managed by the customer")
    if not key.is_null("deletion_date"):
        tally.need(False, f"the backup key will be deleted on {key.text('deletion_date')}: no backup survives it")
    else:
        state = key.text("state")
        tally.need(state == "Enabled", f"the backup key is {state}, not Enabled")
    return tally.conclude("the backup key is enabled, managed by the customer, and not to be deleted")


def _rotation(read: Reader, _expected: Expected) -> Found:
    enabled = read.observation("key-rotation").flag("enabled")
    return Tally().need(enabled, "the backup key does not rotate").conclude("the backup key rotates every year")


def _key_policy(read: Reader, expected: Expected) -> Found:
    spared = exceptions_to_denial(read.observation("key-policy").at("document").value, DESTRUCTIVE, expected.key_arn)
    tally = Tally().need(spared is not None, f"the key's policy does not deny {' and '.join(DESTRUCTIVE)} to everybody")
    names = ", ".join(spared or []) or "nobody"
    return tally.conclude(f"the key's policy denies deleting and disabling it; spared: {names}")


def _transport(read: Reader, expected: Expected) -> Found:
    found, tally = read.observation("cluster-parameters"), Tally()
    value = "not set" if found.is_null("rds.force_ssl") else found.text("rds.force_ssl")
    tally.need(value == "1", f"the parameter rds.force_ssl is {value}, so the database accepts connections without TLS")
    plain = refuses_plain_http(read.observation("bucket-policy").at("document").value, expected.bucket_arn)
    tally.need(plain, "the bucket's policy does not deny requests without TLS")
    return tally.conclude("rds.force_ssl is 1, and the bucket's policy denies requests without TLS")


ENCRYPTION = (
    CheckSpec(
        id="encryption.cluster",
        title="The cluster's storage is encrypted under a customer key",
        level=Level.OBSERVED,
        remedy="Restore a snapshot of the cluster with KmsKeyId set to a customer key, and move to it: a cluster "
        "cannot be encrypted in place.",
        run=_cluster,
    ),
    CheckSpec(
        id="encryption.recovery-points",
        title="Every snapshot and recovery point is encrypted under a customer key",
        level=Level.OBSERVED,
        remedy="Copy each named snapshot with KmsKeyId set to a customer key, then delete the unencrypted one.",
        run=_snapshots,
    ),
    CheckSpec(
        id="encryption.copies",
        title="Every copy in another vault is encrypted under a customer key",
        level=Level.OBSERVED,
        remedy="Give the destination vault a customer key and copy the named recovery points again.",
        run=_copies,
        applies=lambda e: bool(e.copy_vaults),
    ),
    CheckSpec(
        id="encryption.bucket",
        title="The bucket encrypts with the backup key by default",
        level=Level.DECLARED,
        remedy="Deploy the stack again, or put the bucket's default encryption back to aws:kms with the backup key; "
        "then check encryption.objects for what was written meanwhile.",
        run=_bucket,
    ),
    CheckSpec(
        id="encryption.objects",
        title="Each object of the newest sets, and each that was written in the last days, is under the backup key",
        level=Level.OBSERVED,
        remedy="Find out from CloudTrail who wrote each named object. What belongs there: copy it onto itself with the "
        "backup key; what does not: delete it, with its versions.",
        run=_objects,
    ),
    CheckSpec(
        id="encryption.vault",
        title="The backup vault is under a customer key",
        level=Level.OBSERVED,
        remedy="A vault's key cannot be changed: make a vault with a customer key, point the plan to it, and copy the "
        "recovery points.",
        run=_vault,
        applies=lambda e: e.vault is not None,
    ),
    CheckSpec(
        id="encryption.topic",
        title="The alert topic is encrypted under a customer key",
        level=Level.OBSERVED,
        remedy="Set KmsMasterKeyId of the topic to the backup key.",
        run=_topic,
        applies=lambda e: e.topic_arn is not None,
    ),
    CheckSpec(
        id="encryption.logs",
        title="The log groups of the backup functions and workflows are under customer keys",
        level=Level.OBSERVED,
        remedy="Associate the backup key with each named log group (aws logs associate-kms-key).",
        run=_logs,
        applies=lambda e: bool(e.log_groups),
    ),
    CheckSpec(
        id="encryption.key",
        title="The backup key is enabled and will not be deleted",
        level=Level.OBSERVED,
        remedy="At once: aws kms cancel-key-deletion, then aws kms enable-key. Without the key no backup can be read. "
        "Then find out from CloudTrail who did it.",
        run=_key_state,
    ),
    CheckSpec(
        id="encryption.key-rotation",
        title="The backup key rotates",
        level=Level.DECLARED,
        remedy="aws kms enable-key-rotation for the backup key.",
        run=_rotation,
    ),
    CheckSpec(
        id="encryption.key-policy",
        title="The key's policy denies its deletion",
        level=Level.DECLARED,
        remedy="Put the statement DenyDeletionOutsideBreakGlass back into the key's policy (the stack's template has "
        "it; for an existing key, docs/compliance.md does).",
        run=_key_policy,
    ),
    CheckSpec(
        id="encryption.transport",
        title="TLS is forced, to the database and to the bucket",
        level=Level.DECLARED,
        remedy="Set rds.force_ssl to 1 in the cluster's parameter group, and put back the bucket policy's denial of "
        "requests with aws:SecureTransport false.",
        run=_transport,
    ),
)
