"""Who may delete backups, as the identity policies of an account say. Pure.

What `iam:GetAccountAuthorizationDetails` answers is held against a few targets. It says too much rather than too
little: an Allow under conditions counts and is marked, a Deny counts only where it certainly holds, and service control
policies are not seen. So it is a list for a reader: no check passes on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from aurora_backup.access_documents import (
    DocumentError,
    covers_resource,
    exceptions_to_denial,
    glob,
    meet,
    statements,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_ROOT = re.compile(r"arn:[^:]+:iam::\d{12}:root")


class May(IntEnum):
    """Whether a principal may do something; SOMETIMES is under conditions."""

    NEVER = 0
    SOMETIMES = 1
    ALWAYS = 2


@dataclass(frozen=True)
class Target:
    """Something that can be deleted. ways: (action, resource ARN or pattern) pairs; each of them is enough.

    guard: the resource policy that can deny it, by the name of its observation.
    """

    name: str
    what: str
    ways: tuple[tuple[str, str], ...]
    guard: str | None = None


def targets(*, key_arn: str, bucket: str, cluster_id: str) -> tuple[Target, ...]:
    """What holds, or protects, the backups of one cluster. Partition, Region and account are the key's."""
    _, partition, _, region, account, _ = key_arn.split(":", 5)
    rds, s3 = f"arn:{partition}:rds:{region}:{account}", f"arn:{partition}:s3:::{bucket}"
    return (
        Target(
            "key",
            "the backup key",
            (("kms:ScheduleKeyDeletion", key_arn), ("kms:DisableKey", key_arn)),
            guard="key-policy",
        ),
        Target(
            "recovery-points",
            "recovery points in the vault",
            (("backup:DeleteRecoveryPoint", f"{rds}:cluster-snapshot:awsbackup:*"),),
            guard="vault-policy",
        ),
        Target(
            "snapshots",
            "on-demand snapshots",
            (("rds:DeleteDBClusterSnapshot", f"{rds}:cluster-snapshot:*"),),
        ),
        Target(
            "sets",
            "dump sets and evidence, with every version",
            (("s3:DeleteObjectVersion", f"{s3}/*"), ("s3:PutLifecycleConfiguration", s3)),
            guard="bucket-policy",
        ),
        Target(
            "governance",
            "what Object Lock keeps in governance mode",
            (("s3:BypassGovernanceRetention", f"{s3}/*"),),
            guard="bucket-policy",
        ),
        Target(
            "cluster",
            "the cluster, and its automated backups with it",
            (("rds:DeleteDBCluster", f"{rds}:cluster:{cluster_id}"),),
        ),
    )


def who_may(details: Iterable[Mapping[str, Any]], wanted: Sequence[Target]) -> dict[str, Any]:
    """`{"principals": [{"arn", "may": {target: "always" | "sometimes"}}], "unread": [policy ARN]}`.

    details: the pages of GetAccountAuthorizationDetails, documents decoded. unread: attached policies that it did not
    show; what they allow is not known. Raises DocumentError: a policy is not what IAM's grammar allows.
    """
    pages = list(details)
    policies = {p["Arn"]: _default(p) for page in pages for p in page.get("Policies", [])}
    groups = {g["GroupName"]: g for page in pages for g in page.get("GroupDetailList", [])}
    unread: set[str] = set()

    def documents(inline: str, entity: Mapping[str, Any]) -> Iterator[Any]:
        yield from (policy["PolicyDocument"] for policy in entity.get(inline, []))
        yield from attached(p["PolicyArn"] for p in entity.get("AttachedManagedPolicies", []))

    def attached(arns: Iterable[str]) -> Iterator[Any]:
        for arn in arns:
            if policies.get(arn) is None:
                unread.add(arn)
            else:
                yield policies[arn]

    found = []
    for page in pages:
        for user in page.get("UserDetailList", []):
            mine = list(documents("UserPolicyList", user))
            for name in user.get("GroupList", []):
                mine += documents("GroupPolicyList", groups.get(name, {}))
            found.append((user, mine))
        found += [(role, list(documents("RolePolicyList", role))) for role in page.get("RoleDetailList", [])]
    principals = []
    for entity, mine in found:
        boundary = (entity.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn")
        bounds = list(attached([boundary])) if boundary else None
        may = {target.name: _may(target, mine, bounds).name.lower() for target in wanted}
        if able := {name: how for name, how in may.items() if how != "never"}:
            principals.append({"arn": entity["Arn"], "may": able})
    return {"principals": sorted(principals, key=lambda p: str(p["arn"])), "unread": sorted(unread)}


def _default(policy: Mapping[str, Any]) -> Any:
    versions = policy.get("PolicyVersionList", [])
    return next((v.get("Document") for v in versions if v.get("IsDefaultVersion")), None)


def _may(target: Target, documents: Sequence[Any], bounds: Sequence[Any] | None) -> May:
    ways = (
        # A boundary that could not be read bounds nothing: rather too much than too little.
        min(_allowed(documents, *way), _allowed(bounds, *way) if bounds else May.ALWAYS)
        for way in target.ways
    )
    return max(ways, default=May.NEVER)


def _allowed(documents: Sequence[Any], action: str, resource: str) -> May:
    """What some policies together allow. resource may be a pattern: of anything that it can name."""
    best = May.NEVER
    for statement in (s for document in documents for s in statements(document)):
        if not _speaks_of(statement, action):
            continue
        conditional = bool(statement.get("Condition"))
        if statement["Effect"] == "Allow" and _reaches(statement, resource):
            best = max(best, May.SOMETIMES if conditional else May.ALWAYS)
        if statement["Effect"] == "Deny" and not conditional and covers_resource(statement, resource):
            return May.NEVER
    return best


def _speaks_of(statement: Mapping[str, Any], action: str) -> bool:
    named = "Action" if "Action" in statement else "NotAction"
    patterns = texts(statement.get(named), named)
    matches = any(glob(pattern.lower()).fullmatch(action.lower()) for pattern in patterns)
    return matches if named == "Action" else not matches


def _reaches(statement: Mapping[str, Any], resource: str) -> bool:
    """Whether an Allow may be of something that `resource` names."""
    if "NotResource" in statement:
        return not any(glob(p).fullmatch(resource) for p in texts(statement["NotResource"], "NotResource"))
    given = texts(statement.get("Resource"), "Resource")
    return any(meet(re.sub(r"\$\{[^}]*\}", "*", pattern), resource) for pattern in given)


@dataclass(frozen=True)
class Answer:
    """Who can delete one target. who: by ARN, "always" or "sometimes" (under conditions); None when nobody can tell.

    rests_on: what was read, and what could not be.
    """

    what: str
    who: dict[str, str] | None
    rests_on: str


def answers(
    wanted: Iterable[Target], guards: Mapping[str, object], identities: Mapping[str, Any] | None, account: str
) -> list[Answer]:
    """Put resource policies and identity policies together.

    guards: documents of resource policies by name, None where there is none; one that could not be read is absent.
    identities: as `who_may` gave them; None when they could not be read. The root user and principals of other accounts
    are shown wherever a resource policy spares them: no identity policy that can be read here binds them.
    """
    able: dict[str, dict[str, str]] | None = None
    if identities is not None:
        able = {t.name: {} for t in wanted}
        for principal in identities["principals"]:
            for name, how in principal["may"].items():
                able.setdefault(name, {})[principal["arn"]] = how
    found = []
    for target in wanted:
        mine = None if able is None else able[target.name]
        said = ["identity policies" if able is not None else "identity policies could not be read"]
        spared = None
        if target.guard is not None:
            try:
                spared = _spared(target, guards[target.guard])
                said.insert(0, target.guard.replace("-", " "))
            except (KeyError, DocumentError):
                said.insert(0, f"{target.guard.replace('-', ' ')} could not be read")
        unread = identities["unread"] if identities else ()
        said += [f"not shown to us: {', '.join(unread)}"] if unread else []
        found.append(Answer(target.what, _remaining(spared, mine, account), "; ".join(said)))
    return found


def _spared(target: Target, document: object) -> list[str] | None:
    """Whom the resource policy spares from a denial of every way; None where some way is not denied to everybody."""
    found: set[str] = set()
    for action, resource in target.ways:
        spared = exceptions_to_denial(document, (action,), resource)
        if spared is None:
            return None
        found |= set(spared)
    return sorted(found)


def _remaining(spared: Sequence[str] | None, able: Mapping[str, str] | None, account: str) -> dict[str, str] | None:
    if spared is None:
        return None if able is None else dict(able)
    found: dict[str, str] = {}
    for name in spared:
        if _ROOT.fullmatch(name) or f"::{account}:" not in name or able is None:
            found[name] = "always"
        else:
            found |= {arn: how for arn, how in able.items() if glob(name).fullmatch(arn)}
    return found
