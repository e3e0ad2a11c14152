"""Accessibility: the backups can be read by the role that would restore them, and by nobody outside. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_backup.access_documents import exceptions_to_denial, lets_in
from aurora_backup.checks_encryption import DESTRUCTIVE, keys_of, state_of
from aurora_backup.compliance import CheckSpec, Expected, Found, Level, Tally, cluster_of
from aurora_backup.compliance_facts import FactMissing
from aurora_backup.read_back import ARCHIVED, READ, REFUSED

if TYPE_CHECKING:
    from aurora_backup.compliance_facts import Node, Reader

_PUBLIC_BLOCKS = ("block_public_acls", "ignore_public_acls", "block_public_policy", "restrict_public_buckets")


def account_of(read: Reader, expected: Expected) -> str:
    """The account that the cluster is in."""
    return cluster_of(read, expected).text("arn").split(":")[4]


def _sharing(read: Reader, expected: Expected) -> Found:
    shared = {item.text("id"): item for item in read.observation("snapshot-sharing").each()}
    friends = {account_of(read, expected), *expected.friends}

    def look(snapshot: Node) -> str | None:
        name, kind = snapshot.text("id"), snapshot.text("kind")
        if kind == "automated":
            return None  # cannot be shared
        if name not in shared:
            raise FactMissing(f"with whom {name} is shared was not read")
        outside = sorted(set(shared[name].texts("shared_with")) - friends)
        return (
            f"{name} can be restored by {'everybody' if 'all' in outside else ', '.join(outside)}" if outside else None
        )

    snapshots = read.observation("snapshots").each()
    # The complete list is itself a fact: where it is empty, nothing is shared.
    tally = Tally(examined=1).look(snapshots, look)
    return tally.conclude(f"none of {len(snapshots)} snapshots is public or shared with an unknown account")


def _bucket(read: Reader, expected: Expected) -> Found:
    blocks, tally = read.observation("bucket-public-access"), Tally()
    for name in _PUBLIC_BLOCKS:
        tally.need(blocks.flag(name), f"the bucket's {name} is off")
    outside = lets_in(
        read.observation("bucket-policy").at("document").value, account_of(read, expected), expected.friends
    )
    tally.need(not outside, f"the bucket's policy lets in {', '.join(outside)}")
    return tally.conclude("public access is blocked four ways, and the bucket's policy lets in nobody from outside")


def _vault(read: Reader, expected: Expected) -> Found:
    document = read.observation("vault-policy").at("document").value
    outside = lets_in(document, account_of(read, expected), expected.friends)
    tally = Tally().need(not outside, f"the vault's policy lets in {', '.join(outside)}")
    spared = exceptions_to_denial(document, *_delete_points(expected))
    if expected.vault_denies_deletion:
        tally.need(spared is not None, "the vault's policy does not deny deleting recovery points")
    return tally.conclude("the vault's policy lets in nobody from outside")


def _deletion(read: Reader, expected: Expected) -> Found:
    identities, tally = read.observation("identities"), Tally()
    able = identities.each("principals")
    tally.look(able, _can_do)
    tally.examined += 1  # the complete list is itself a fact: where it is empty, nobody can
    tally.unknown += [f"what {arn} allows was not shown by IAM" for arn in identities.texts("unread")]
    guarded: list[tuple[str, str, tuple[str, ...], str]] = [("key", "key-policy", DESTRUCTIVE, expected.key_arn)]
    if expected.vault_denies_deletion:
        guarded.append(("vault", "vault-policy", *_delete_points(expected)))
    for what, name, actions, resource in guarded if expected.break_glass else ():
        spared = exceptions_to_denial(read.observation(name).at("document").value, actions, resource)
        if spared is None:  # encryption.key-policy and accessibility.vault say that this is wrong
            tally.unknown.append(f"the {what}'s policy does not deny {' and '.join(actions)} to everybody")
            continue
        others = sorted(set(spared) - set(expected.break_glass))
        tally.need(not others, f"the {what}'s policy spares {', '.join(others)}, which is no break-glass role")
    spares = f"; the denials of deletion spare only {', '.join(expected.break_glass)}" if expected.break_glass else ""
    return tally.conclude(f"IAM lets {len(able)} principals delete something of the backups: they are listed{spares}")


def _delete_points(expected: Expected) -> tuple[tuple[str, ...], str]:
    """The action, and the recovery points, that the vault's policy denies it for."""
    ((action, resource),) = next(t.ways for t in expected.targets if t.guard == "vault-policy")
    return (action,), resource


def _can_do(principal: Node) -> str | None:
    principal.text("arn")
    for _, how in principal.at("may").members():
        if how.value not in ("always", "sometimes"):
            raise FactMissing(f"{how.path} must be always or sometimes, and is {how.value!r}")
    return None


def _archives(read: Reader, _expected: Expected) -> Found:
    told = read.observation("read-back")
    role, restores = told.text("role"), told.text("restores_under")
    if role != restores:
        raise FactMissing(f"the objects were read under {role}, and dump sets are restored under {restores}")
    answers: dict[str, Node] = {}
    for answer in told.each("objects"):
        if answers.setdefault(answer.text("key"), answer) is not answer:
            raise FactMissing(f"{answer.text('key')} was answered for twice")
    cold = 0

    def look(item: Node) -> str | None:
        nonlocal cold
        key = item.text("key")
        if item.is_null("found") and item.is_null("problem"):
            raise FactMissing(f"{key} is not there")  # integrity.archives says that this is wrong
        if key not in answers:
            raise FactMissing(f"{key} was not read back")
        answer, state = answers[key], answers[key].text("state")
        if state == READ and answer.is_null("problem"):
            return None
        problem = answer.text("problem")
        if state == ARCHIVED:
            cold += 1
            return None
        if state == REFUSED:
            return f"{key} cannot be read under {role}: {problem}"
        raise FactMissing(f"{key} was not read back: {problem}")

    tally = Tally().look(read.observation("objects").each(), look)
    note = f"; {cold} are archived: a restore request is required before they can be read" if cold else ""
    return tally.conclude(
        f"the first bytes of {tally.examined - cold} objects of the newest sets were read under {role}, "
        f"which restores them{note}"
    )


def _points(read: Reader, expected: Expected) -> Found:
    keys = keys_of(read)

    def look(point: Node) -> str | None:
        name, status = point.text("arn"), point.text("status").lower()
        if status in {"creating", "deleting", "running", "pending"}:
            return None
        if status not in {"available", "completed"}:
            return f"{name} is {status}"
        key = point.text("key") if point.flag("encrypted") else None
        if key is not None and key not in keys:
            raise FactMissing(f"the key of {name}, {key}, was not described")
        if key is None or key == expected.key_arn:  # encryption.key says what is wrong with the backup key
            return None
        state = state_of(keys[key])
        return None if state == "Enabled" else f"{name}: {key} is {state}"

    tally = Tally().look(read.observation("snapshots").each(), look)
    if expected.vault:
        tally.look(read.observation("recovery-points").each(), look)
    return tally.conclude(f"{tally.examined} snapshots and recovery points are available, with their keys")


ACCESSIBILITY = (
    CheckSpec(
        id="accessibility.sharing",
        title="No snapshot is public, or shared with an account that is not named",
        level=Level.OBSERVED,
        remedy="At once: aws rds modify-db-cluster-snapshot-attribute --attribute-name restore --values-to-remove all "
        "(or the account). Treat it as a disclosure until CloudTrail shows that nobody copied it.",
        run=_sharing,
    ),
    CheckSpec(
        id="accessibility.bucket",
        title="The bucket is closed to the public and to other accounts",
        level=Level.DECLARED,
        remedy="Deploy the stack again, or put the public access block and the bucket policy back as they were.",
        run=_bucket,
    ),
    CheckSpec(
        id="accessibility.vault",
        title="The vault is closed to other accounts",
        level=Level.DECLARED,
        remedy="Deploy the stack again: the vault's access policy was changed outside it.",
        run=_vault,
        applies=lambda e: e.vault is not None,
    ),
    CheckSpec(
        id="accessibility.deletion",
        title="Who can delete is known, and nobody but the break-glass roles is spared from the denials of deletion",
        level=Level.DECLARED,
        remedy="Where the reason names somebody who is spared: deploy the stack again, since that policy was changed "
        "outside it, and find out from CloudTrail by whom and what was deleted since. Where something could not be "
        "read: let the role of the gathering function call iam:GetAccountAuthorizationDetails.",
        run=_deletion,
    ),
    CheckSpec(
        id="accessibility.archives",
        title="The newest archives can be read back now by the role that would restore them",
        level=Level.OBSERVED,
        remedy="Look at the error: a key that is disabled, a policy that denies, or an object that is gone. Where the "
        "role that read is not the one that restores, deploy the stack again. Archived objects need a restore request "
        "(aws s3api restore-object) before they can be read.",
        run=_archives,
        applies=lambda e: bool(e.policy.dump_schedules()),
    ),
    CheckSpec(
        id="accessibility.recovery-points",
        title="Every finished snapshot and recovery point is available, and so is its key",
        level=Level.OBSERVED,
        remedy="Look at the named point's status message; enable its key, or take a new backup of the tier now.",
        run=_points,
        applies=lambda e: bool(e.policy.snapshot_rules()),
    ),
)
