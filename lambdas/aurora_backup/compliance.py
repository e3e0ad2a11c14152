"""Compliance: five verifications, made of small checks over observed facts. Pure.

Each check ends PASS, FAIL or UNKNOWN, says what it rests on (declared, observed or restored), by which calls and when,
why, and what to do. PASS needs facts: what could not be read is UNKNOWN, and so is a check that broke or examined
nothing. A report is PASS only when all five verifications passed; INCOMPLETE is not a kind of PASS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aurora_backup.access_documents import DocumentError
from aurora_backup.compliance_facts import Evidence, FactMissing, Node, Reader
from aurora_backup.compliance_principals import targets
from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA
from aurora_backup.schedule import require_utc
from aurora_backup.validation import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from aurora_backup.compliance_principals import Target
    from aurora_backup.policy import RetentionPolicy

_NAMED = 10  # problems named in one reason; the rest are counted


class Verification(StrEnum):
    """The five verifications."""

    ENCRYPTION = "encryption"
    RETENTION = "retention"
    COMPLETION = "completion"
    ACCESSIBILITY = "accessibility"
    INTEGRITY = "integrity"


class Level(StrEnum):
    """What a verdict rests on.

    DECLARED: a setting that says what will happen, read back from the service that will do it.
    OBSERVED: the thing itself, seen now by a call. RESTORED: a restore that was queried.
    """

    DECLARED = "declared"
    OBSERVED = "observed"
    RESTORED = "restored"


class Status(StrEnum):
    """How a report ends. INCOMPLETE: something could not be shown; it is never a pass."""

    PASS = "PASS"  # noqa: S105  a verdict, not a password
    FAIL = "FAIL"
    INCOMPLETE = "INCOMPLETE"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the facts are held against.

    lineage: resource ids of the cluster, the present one first. key_arn: the customer key of the backups. vault and
    plan_id: of AWS Backup; None where the policy takes no snapshots. log_groups: beginnings of the names of this
    package's log groups. workflows: state machine ARN by name. read_back: ARN of the function that reads archives back;
    restore: of the one that restores dump sets. databases: those that must have sets; () when they are
    discovered. rules: names of the plan's rules beside the policy's. lock_days: the least and the most days of the
    vault's lock as declared; () when the deployment does not say. copy_vaults: other vaults that hold copies.
    friends: account numbers, and ids of organisations, that may see snapshots and objects.
    deleters: roles of this package that delete what has expired. break_glass: the only principals that the policies of
    the key and the vault may spare from their denials; () when the deployment does not say. vault_locked,
    vault_denies_deletion, deletion_protection: whether the deployment asks for each. snapshot_quota: the Region's, of
    manual cluster snapshots.
    """

    owner: str
    cluster_id: str
    lineage: tuple[str, ...]
    bucket: str
    key_arn: str
    policy: RetentionPolicy
    vault: str | None = None
    plan_id: str | None = None
    topic_arn: str | None = None
    log_groups: tuple[str, ...] = ()
    workflows: Mapping[str, str] = field(default_factory=dict)
    read_back: str | None = None
    restore: str | None = None
    databases: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    vault_locked: bool = False
    lock_days: tuple[int, ...] = ()
    vault_denies_deletion: bool = False
    deletion_protection: bool = True
    copy_vaults: tuple[str, ...] = ()
    friends: tuple[str, ...] = ()
    deleters: tuple[str, ...] = ()
    break_glass: tuple[str, ...] = ()
    snapshot_quota: int = MANUAL_SNAPSHOT_QUOTA

    @property
    def bucket_arn(self) -> str:
        """The bucket's ARN, in the key's partition."""
        return f"arn:{self.key_arn.split(':')[1]}:s3:::{self.bucket}"

    @property
    def targets(self) -> tuple[Target, ...]:
        """What somebody could delete; without a vault there are no recovery points in it."""
        every = targets(key_arn=self.key_arn, bucket=self.bucket, cluster_id=self.cluster_id)
        return tuple(t for t in every if self.vault or t.guard != "vault-policy")


@dataclass(frozen=True)
class Found:
    """What a check found. examined: how many things it looked at; a pass that looked at none is no pass."""

    verdict: Verdict
    reason: str
    examined: int


@dataclass(frozen=True, kw_only=True)
class CheckSpec:
    """One row of the table of checks. id: `<verification>.<name>`, never reused for another meaning.

    applies: whether the policy asks for what the check looks at. remedy: what to do when it does not pass.
    """

    id: str
    title: str
    level: Level
    remedy: str
    run: Callable[[Reader, Expected], Found]
    applies: Callable[[Expected], bool] = lambda _: True

    @property
    def verification(self) -> Verification:
        """The verification that it is part of."""
        return Verification(self.id.partition(".")[0])


@dataclass(frozen=True)
class Result:
    """How one check ended."""

    spec: CheckSpec
    verdict: Verdict
    reason: str
    examined: int
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Assessment:
    """Every check's result, in the table's order, and the ids of the checks that the policy does not ask for."""

    results: tuple[Result, ...]
    not_applicable: tuple[CheckSpec, ...]

    def verification(self, name: Verification) -> Verdict:
        """FAIL when a check failed, UNKNOWN when one is unknown or none ran, PASS when all passed."""
        return combine(r.verdict for r in self.results if r.spec.verification is name)

    @property
    def status(self) -> Status:
        """The verdict over all five verifications."""
        overall = combine(self.verification(name) for name in Verification)
        return {Verdict.PASS: Status.PASS, Verdict.FAIL: Status.FAIL}.get(overall, Status.INCOMPLETE)

    @property
    def remediation_needed(self) -> bool:
        """Whether there is something to do: any check that did not pass."""
        return self.status is not Status.PASS


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several; of none at all, UNKNOWN."""
    seen = set(verdicts)
    if not seen or not seen <= set(Verdict):
        return Verdict.UNKNOWN
    return next(v for v in (Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS) if v in seen)


def assess(facts: Mapping[str, Any], expected: Expected, now: datetime, *, checks: Sequence[CheckSpec]) -> Assessment:
    """Run the checks that the policy asks for. now: the time of the report, aware; it comes with the event."""
    now = require_utc(now, "now")
    asked = [spec for spec in checks if spec.applies(expected)]
    return Assessment(
        tuple(_run(spec, facts, expected, now) for spec in asked),
        tuple(spec for spec in checks if spec not in asked),
    )


def _run(spec: CheckSpec, facts: Mapping[str, Any], expected: Expected, now: datetime) -> Result:
    reader = Reader(facts, now)
    try:
        found = spec.run(reader, expected)
    except (FactMissing, DocumentError) as error:
        found = Found(Verdict.UNKNOWN, str(error), 0)
    except Exception as error:  # noqa: BLE001  a check that breaks has shown nothing
        found = Found(Verdict.UNKNOWN, f"the check itself broke: {type(error).__name__}: {error}", 0)
    rests_on_facts = found.examined > 0 and bool(reader.evidence) and all(e.ok for e in reader.evidence)
    if found.verdict is Verdict.PASS and not rests_on_facts:
        found = Found(Verdict.UNKNOWN, "there was nothing to examine", found.examined)
    return Result(spec, found.verdict, found.reason, found.examined, reader.evidence)


@dataclass
class Tally:
    """Collects what a check finds about many things: problems, things that could not be judged, and how many."""

    examined: int = 0
    problems: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def look(self, items: Iterable[Node], at: Callable[[Node], str | None]) -> Tally:
        """Look at each: `at` answers with the problem, or None when there is none."""
        for item in items:
            self.examined += 1
            try:
                if problem := at(item):
                    self.problems.append(problem)
            except (FactMissing, DocumentError) as error:
                self.unknown.append(str(error))
        return self

    def need(self, holds: bool, problem: str) -> Tally:
        """Count one thing, which must hold."""
        self.examined += 1
        if not holds:
            self.problems.append(problem)
        return self

    def conclude(self, reason: str) -> Found:
        """FAIL with the problems, else UNKNOWN with what could not be judged, else PASS with `reason`."""
        for verdict, texts in ((Verdict.FAIL, self.problems), (Verdict.UNKNOWN, self.unknown)):
            if texts:
                more = f"; and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
                return Found(verdict, "; ".join(texts[:_NAMED]) + more, self.examined)
        return Found(Verdict.PASS, reason, self.examined)


def cluster_of(read: Reader, expected: Expected) -> Node:
    """The cluster. Raises FactMissing when its name belongs to another cluster now: names are reused."""
    cluster = read.observation("cluster")
    resource_id = cluster.text("resource_id")
    if resource_id not in expected.lineage:
        protected = ", ".join(expected.lineage)
        raise FactMissing(f"the name {expected.cluster_id} belongs to {resource_id} now, and {protected} is protected")
    return cluster


def unknown(reason: str, examined: int = 0) -> Found:
    """Nothing can be said, and why."""
    return Found(Verdict.UNKNOWN, reason, examined)
