"""Every compliance check passes on a healthy system, fails on its own damage, and never passes without its facts."""

from __future__ import annotations

import copy
import dataclasses
import re
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aurora_backup.checks import CHECKS
from aurora_backup.compliance import CheckSpec, Found, Level, Status, Verification, assess, combine
from aurora_backup.compliance_facts import FactMissing, Reader, observed, unobserved
from aurora_backup.policy import RetentionPolicy
from aurora_backup.validation import Verdict
from tests.unit.healthy_facts import (
    ADMIN,
    AT,
    BREAK_GLASS,
    EXPECTED,
    KEY,
    NOW,
    RESTORER,
    healthy,
    iso,
    lifecycle_rule,
    plan_rule,
    policy_document,
    snapshot_point,
)

OTHER = "2" * 12
IDS = [spec.id for spec in CHECKS]
ASKED = [spec.id for spec in CHECKS if spec.applies(EXPECTED)]


def run(facts, expected=EXPECTED, now=NOW):
    return assess(facts, expected, now, checks=CHECKS)


def failing(facts, expected=EXPECTED, now=NOW):
    return {r.spec.id for r in run(facts, expected, now).results if r.verdict is Verdict.FAIL}


def reason(facts, check, expected=EXPECTED):
    return next(r.reason for r in run(facts, expected).results if r.spec.id == check)


def test_a_healthy_system_passes_every_check():
    assessment = run(healthy())
    assert [(r.spec.id, r.reason) for r in assessment.results if r.verdict is not Verdict.PASS] == []
    assert (assessment.status, assessment.remediation_needed) == (Status.PASS, False)
    assert {s.id for s in assessment.not_applicable} == {"completion.daily-sets", "completion.monthly-sets"}


def test_every_check_has_an_id_a_remedy_and_a_level():
    assert len(set(IDS)) == len(IDS)
    for spec in CHECKS:
        assert spec.id.partition(".")[0] in set(Verification)
        assert spec.remedy.endswith(".")
        assert spec.title
        assert isinstance(spec.level, Level)
    assert {s.id for s in CHECKS if s.level is Level.RESTORED} == {"integrity.trial-restore", "integrity.recovery-test"}


def test_every_check_says_what_it_rests_on_by_which_call_and_when():
    for result in run(healthy()).results:
        assert result.evidence, result.spec.id
        for evidence in result.evidence:
            assert evidence.at == AT.isoformat()
            assert evidence.call
            assert evidence.ok


def damage(path, value):
    """The healthy facts with one value replaced; a callable changes the value in place."""

    def apply():
        facts = healthy()
        name, *rest = path
        holder, last = facts["observations"][name], "value"
        for step in rest:
            holder, last = holder[last], step
        if callable(value):
            value(holder[last])
        else:
            holder[last] = value
        return facts

    return apply


def drop_newest(prefix):
    def change(points):
        newest = max(
            (p for p in points if p.get("tier", p.get("prefix")) == prefix),
            key=lambda p: p.get("created", p.get("started")),
        )
        points.remove(newest)

    return change


def older(days, *names):
    def change(items):
        for item in items:
            for name in names:
                item[name] = iso(NOW - timedelta(days=days))

    return change


# check -> (damage, what the reason must say). One row or more for every check.
DAMAGES = [
    ("encryption.cluster", damage(["cluster", "encrypted"], False), "StorageEncrypted is false"),
    ("encryption.cluster", damage(["cluster", "key"], "arn:aws:kms:key/aws-rds"), "not known to be a customer key"),
    ("encryption.recovery-points", damage(["snapshots", 0, "encrypted"], False), "snapshot:manual-1 is not encrypted"),
    ("encryption.recovery-points", damage(["recovery-points", 3, "encrypted"], False), "is not encrypted"),
    ("encryption.copies", damage(["copies", 0, "encrypted"], False), "is not encrypted"),
    ("encryption.bucket", damage(["bucket-encryption", "algorithm"], "AES256"), "AES256, not aws:kms"),
    ("encryption.bucket", damage(["bucket-encryption", "key"], "arn:other"), "arn:other"),
    ("encryption.objects", damage(["objects", 0, "found", "encryption"], None), "not under a KMS key"),
    ("encryption.objects", damage(["objects", 1, "found", "encryption"], "AES256"), "not under a KMS key"),
    ("encryption.objects", damage(["objects", 1, "found", "encryption"], "other"), "not under a KMS key"),
    ("encryption.objects", damage(["objects", 0, "found", "key"], "arn:other"), "arn:other"),
    ("encryption.objects", damage(["recent-objects", "groups", 0, "encryption"], "AES256"), "registers/a.json and 38"),
    (
        "encryption.objects",
        damage(["recent-objects", "groups", 0, "encryption"], None),
        "not under a KMS key but nothing",
    ),
    (
        "encryption.objects",
        damage(["recent-objects", "groups", 0, "key"], "arn:other"),
        "under arn:other, not the backup",
    ),
    ("encryption.vault", damage(["vault", "key"], "arn:aws-managed"), "not known to be a customer key"),
    ("encryption.topic", damage(["topic", "key"], None), "not encrypted"),
    ("encryption.topic", damage(["topic", "key"], "alias/aws/sns"), "not known to be a customer key"),
    (
        "encryption.topic",
        damage(["topic", "key"], "arn:aws:kms:eu-west-1:111122223333:alias/aws/sns"),
        "not known to be a customer key",
    ),
    ("encryption.logs", damage(["log-groups", 0, "key"], None), "Stack-Dump"),
    (
        "encryption.key",
        damage(["keys", 0, "deletion_date"], iso(NOW + timedelta(days=7))),
        "will be deleted on 2026-11-30",
    ),
    ("encryption.key", damage(["keys", 0, "state"], "Disabled"), "is Disabled"),
    ("encryption.key-rotation", damage(["key-rotation", "enabled"], False), "does not rotate"),
    ("encryption.key-policy", damage(["key-policy", "document", "Statement"], lambda s: s.pop()), "does not deny"),
    ("encryption.transport", damage(["cluster-parameters", "rds.force_ssl"], "0"), "rds.force_ssl is 0"),
    ("encryption.transport", damage(["cluster-parameters", "rds.force_ssl"], None), "not set"),
    ("encryption.transport", damage(["bucket-policy", "document"], None), "requests without TLS"),
    ("retention.opt-in", damage(["region-settings", "Aurora"], False), "not opted in"),
    ("retention.cluster", damage(["cluster", "retention_days"], 7), "7 days, the policy asks for 35"),
    ("retention.cluster", damage(["cluster", "copy_tags"], False), "CopyTagsToSnapshot"),
    ("retention.deletion-protection", damage(["cluster", "deletion_protection"], False), "DeletionProtection is off"),
    ("retention.plan", damage(["plan", "rules"], lambda r: r.pop()), "no rule monthly"),
    ("retention.plan", damage(["plan", "rules", 0, "delete_after_days"], 30), "30 days, the policy says 180"),
    ("retention.plan", damage(["plan", "rules", 0, "delete_after_days"], None), "never deletes"),
    ("retention.plan", damage(["plan", "rules", 0, "schedule"], "cron(0 9 ? * SUN *)"), "cron(0 9"),
    (
        "retention.plan",
        damage(["plan", "rules", 0, "vault"], "Default"),
        "writes into the vault Default, not into vault",
    ),
    (
        "retention.plan",
        damage(["plan", "rules"], lambda r: r.append(plan_rule("daily", "cron(0 3 * * ? *)", 1))),
        "a rule daily, which nobody declared",
    ),
    ("retention.plan", damage(["plan", "rules"], lambda r: r.pop(1)), "no rule hourly"),
    ("retention.plan", damage(["selections", 0, "resources"], []), "do not name"),
    (
        "retention.plan",
        damage(["selections", 0, "not_resources"], ["arn:aws:rds:*:*:cluster:clin*"]),
        "the selection Cluster leaves out arn:aws:rds:*:*:cluster:clin*",
    ),
    (
        "retention.plan",
        damage(["selections", 0, "narrowed_by"], ["StringEquals aws:ResourceTag/backup yes"]),
        "only by its tags: StringEquals aws:ResourceTag/backup yes",
    ),
    ("retention.vault-lock", damage(["vault", "locked"], False), "not locked"),
    ("retention.vault-lock", damage(["vault", "min_days"], 200), "rule weekly is below"),
    (
        "retention.vault-lock",
        damage(["vault", "min_days"], None),
        "min_days of the lock of vault is None, declared is 7",
    ),
    ("retention.vault-lock", damage(["vault", "min_days"], 0), "is 0, declared is 7"),
    ("retention.vault-lock", damage(["vault", "max_days"], None), "is None, declared is 3000"),
    ("retention.vault-lock", damage(["vault", "max_days"], 365), "rule monthly is above"),
    (
        "retention.lifecycle",
        damage(["bucket-lifecycle", 2, "expire_days"], 30),
        "logical-backups/ expires after 30 days, the policy says 90",
    ),
    ("retention.lifecycle", damage(["bucket-lifecycle", 3, "noncurrent_days"], 1), "removes old versions after 1 days"),
    ("retention.lifecycle", damage(["bucket-lifecycle", 3, "transitions"], []), "colder storage"),
    ("retention.lifecycle", damage(["bucket-lifecycle", 1, "status"], "Disabled"), "no rule expires manual-backups/"),
    (
        "retention.lifecycle",
        damage(
            ["bucket-lifecycle"],
            lambda rules: rules.append({**rules[0], "prefix": "", "expire_days": 1}),
        ),
        "another rule, for 'everything'",
    ),
    *(
        ("retention.lifecycle", damage(["bucket-lifecycle"], lambda rules, rule=rule: rules.append(rule)), says)
        for rule, says in (
            (lifecycle_rule("", expire_date="2026-12-01T00:00:00+00:00"), "expires objects on 2026-12-01T00:00:00"),
            (lifecycle_rule("", noncurrent_days=1), "removes old versions after 1 days of automated-backups/"),
            (
                lifecycle_rule("comp", transitions=[{"days": 1, "date": None, "storage_class": "DEEP_ARCHIVE"}]),
                "for 'comp', moves objects to DEEP_ARCHIVE of compliance-backups/",
            ),
            (
                lifecycle_rule("", noncurrent_transitions=[{"days": 1, "storage_class": "GLACIER"}]),
                "moves old versions to GLACIER",
            ),
            (
                lifecycle_rule("logical-backups/", narrowed_by=["stage=test"], expire_days=90),
                "for 'logical-backups/' (stage=test), expires objects after 90 days",
            ),
            (lifecycle_rule("registers/holds/", expire_days=1), "for 'registers/holds/', expires objects after 1 days"),
            (lifecycle_rule("ledger/", expire_days=1), "for 'ledger/', expires objects after 1 days of ledger/"),
        )
    ),
    (
        "retention.lifecycle",
        damage(["bucket-lifecycle", 2, "narrowed_by"], ["ObjectSizeGreaterThan 1000"]),
        "no rule expires logical-backups/",
    ),
    (
        "retention.lifecycle",
        damage(["bucket-lifecycle", 2, "expire_date"], "2026-12-01T00:00:00+00:00"),
        "expires on 2026-12-01",
    ),
    ("retention.lifecycle", damage(["bucket-lifecycle", 2, "expire_days"], None), "logical-backups/ never expires"),
    (
        "retention.lifecycle",
        damage(["bucket-lifecycle", 3, "transitions", 0], lambda move: move.update(days=None, date="2026-12-01")),
        "on 2026-12-01",
    ),
    (
        "retention.lifecycle",
        damage(["bucket-lifecycle", 3, "noncurrent_transitions"], [{"days": 1, "storage_class": "GLACIER"}]),
        "moves old versions to GLACIER",
    ),
    ("retention.versions", damage(["bucket-versioning", "status"], "Suspended"), "Suspended"),
    ("retention.versions", damage(["bucket-lock", "enabled"], False), "Object Lock of the bucket is off"),
    ("retention.recovery-points", damage(["recovery-points", 0, "delete_at"], iso(NOW)), "the policy keeps it until"),
    ("retention.recovery-points", damage(["recovery-points", 0, "delete_at"], None), "has no expiry"),
    (
        "retention.recovery-points",
        damage(["recovery-points"], lambda p: p.append(snapshot_point("weekly", NOW - timedelta(days=190), 180))),
        "had to expire",
    ),
    ("completion.point-in-time", damage(["cluster", "latest"], None), "no restorable time"),
    ("completion.point-in-time", damage(["cluster", "latest"], iso(NOW - timedelta(hours=3))), "3 h 0 min ago"),
    (
        "completion.point-in-time",
        damage(["cluster", "earliest"], iso(NOW - timedelta(days=3))),
        "the earliest restorable time",
    ),
    (
        "completion.weekly",
        damage(["recovery-points"], lambda p: [drop_newest("weekly")(p) for _ in range(2)]),
        "15 d 3 h old",
    ),
    ("completion.monthly", damage(["recovery-points"], drop_newest("monthly")), "are allowed"),
    (
        "completion.logical",
        damage(["sets"], drop_newest("logical-backups")),
        "was there at the report before and is gone",
    ),
    ("completion.history", damage(["sets"], lambda s: s.pop(4)), "went before its time"),
    ("completion.history", damage(["recovery-points"], lambda p: p.pop(4)), "due on 2026-10-25 02:00 UTC"),
    ("completion.failures", damage(["executions", 0, "status"], "TIMED_OUT"), "LogicalBackup run-0"),
    ("completion.failures", damage(["backup-jobs"], lambda j: j.pop()), "AWS Backup job job-1"),
    ("accessibility.sharing", damage(["snapshot-sharing", 0, "shared_with"], ["all"]), "restored by everybody"),
    ("accessibility.sharing", damage(["snapshot-sharing", 0, "shared_with"], [OTHER]), OTHER),
    (
        "accessibility.bucket",
        damage(["bucket-public-access", "block_public_policy"], False),
        "block_public_policy is off",
    ),
    (
        "accessibility.bucket",
        damage(
            ["bucket-policy", "document", "Statement"],
            lambda s: s.append({"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}),
        ),
        "lets in *",
    ),
    (
        "accessibility.vault",
        damage(
            ["vault-policy", "document", "Statement"],
            lambda s: s.append({"Effect": "Allow", "Principal": {"AWS": OTHER}, "Action": "backup:*", "Resource": "*"}),
        ),
        OTHER,
    ),
    ("accessibility.vault", damage(["vault-policy", "document"], None), "does not deny deleting"),
    (
        "accessibility.archives",
        damage(["read-back", "objects", 0], lambda o: o.update(state="refused", problem="AccessDenied")),
        "AccessDenied",
    ),
    ("accessibility.recovery-points", damage(["recovery-points", 0, "status"], "PARTIAL"), "is partial"),
    ("accessibility.recovery-points", damage(["snapshots", 0, "status"], "failed"), "is failed"),
    (
        "accessibility.deletion",
        damage(
            ["key-policy", "document", "Statement", 1, "Condition", "ArnNotEquals", "aws:PrincipalArn"],
            [BREAK_GLASS, ADMIN],
        ),
        f"the key's policy spares {ADMIN}",
    ),
    (
        "accessibility.deletion",
        damage(
            ["vault-policy", "document", "Statement", 0, "Condition", "ArnNotEquals", "aws:PrincipalArn"],
            [ADMIN],
        ),
        f"the vault's policy spares {ADMIN}",
    ),
    (
        "integrity.manifests",
        damage(["sets", 5, "manifest"], lambda m: m.update(ok=False, problem="digest does not match")),
        "digest",
    ),
    ("integrity.archives", damage(["objects", 0, "found", "version"], "v9"), "was overwritten"),
    ("integrity.archives", damage(["objects", 0, "found", "bytes"], 4999), "4999 bytes"),
    ("integrity.archives", damage(["objects", 0, "found", "crc32"], "BBBBBB=="), "CRC32"),
    ("integrity.archives", damage(["objects", 0, "found"], None), "is not there"),
    (
        "integrity.decode",
        damage(["sets", 0, "verification", "full-decode"], {"ok": False, "detail": "cut", "at": iso(NOW)}),
        "cut",
    ),
    (
        "integrity.trial-restore",
        damage(["sets", 0, "verification", "trial-restore"], {"ok": False, "detail": "2 rows less", "at": iso(NOW)}),
        "2 rows less",
    ),
    (
        "integrity.trial-restore",
        damage(["sets", 0, "verification", "trial-restore", "at"], iso(NOW - timedelta(days=20))),
        "2026-11-03",
    ),
    ("integrity.recovery-test", damage(["recovery-tests"], older(41, "finished")), "41 days old; allowed are 40"),
    ("integrity.recovery-test", damage(["recovery-tests", 2, "outcome"], "NOT PROVED"), "ended NOT PROVED"),
    ("integrity.recovery-test", damage(["documents", 1, "sha256"], "f" * 64), "recovery-tests/monthly/2026-11-02T0716"),
    ("integrity.documents", damage(["documents", 0, "sha256"], "f" * 64), "was written again after it was recorded"),
    ("integrity.documents", damage(["documents"], lambda d: d.pop(0)), "at the report before and is gone"),
]

# Damage that is really two things: then a tier has no good newest point, or a run left none.
ALSO = {"cut": {"completion.logical"}, "2 rows less": {"completion.logical"}, "is partial": {"completion.weekly"}}
ALSO["had to expire"] = {"completion.history"}


@pytest.mark.parametrize(("check", "apply", "says"), DAMAGES, ids=[f"{c}-{s}" for c, _, s in DAMAGES])
def test_damage_fails_exactly_its_own_check_and_says_what_it_is(check, apply, says):
    facts = apply()
    assert check in failing(facts)
    assert failing(facts) - {check} == ALSO.get(says, set())
    assert says in reason(facts, check)
    assert run(facts).status is Status.FAIL


# A policy with the tiers that the default one leaves out: nothing of them was ever made.
SETS = dataclasses.replace(
    EXPECTED,
    policy=RetentionPolicy.hipaa().with_changes(
        {"automated": {"sets_schedule": "cron(0 5 * * ? *)"}, "monthly": {"store": "both"}}
    ),
)


@pytest.mark.parametrize("check", sorted(set(IDS) - set(ASKED)))
def test_what_another_policy_asks_for_fails_when_it_was_never_made(check):
    assert check in failing(healthy(), SETS)
    assert "there is no recovery point, and the first was due on" in reason(healthy(), check, SETS)


def test_a_key_that_cannot_be_described_hides_no_other():
    facts = healthy()
    other = {"arn": "arn:other", "manager": None, "state": None, "deletion_date": None, "problem": "AccessDenied"}
    facts["observations"]["keys"]["value"].append(other)
    facts["observations"]["snapshots"]["value"][0]["key"] = "arn:other"
    assert failing(facts) == set()
    assert "arn:other could not be described: AccessDenied" in reason(facts, "encryption.recovery-points")
    facts["observations"]["keys"]["value"][0]["deletion_date"] = iso(NOW + timedelta(days=7))
    assert failing(facts) == {"encryption.key"}


def test_a_snapshot_under_a_key_that_is_gone_is_a_failure():
    facts = healthy()
    gone = {"arn": "arn:gone", "manager": None, "state": "missing", "deletion_date": None, "problem": None}
    facts["observations"]["keys"]["value"].append(gone)
    facts["observations"]["snapshots"]["value"][0]["key"] = "arn:gone"
    assert failing(facts) == {"encryption.recovery-points", "accessibility.recovery-points"}
    assert "which KMS does not know: nothing can read it" in reason(facts, "encryption.recovery-points")
    facts["observations"]["keys"]["value"] = [gone | {"arn": KEY}]
    assert "encryption.key" in failing(facts)


def test_every_check_has_damage_that_fails_it():
    assert {check for check, _, _ in DAMAGES} == set(ASKED)
    assert {spec.id for spec in CHECKS if spec.applies(SETS)} == set(IDS)


# check -> the observations that it cannot do without. One row for every check.
RESTS_ON = {
    "encryption.cluster": ["cluster", "keys"],
    "encryption.recovery-points": ["keys", "recovery-points", "snapshots"],
    "encryption.copies": ["copies", "keys"],
    "encryption.bucket": ["bucket-encryption"],
    "encryption.objects": ["objects", "previous", "recent-objects"],
    "encryption.vault": ["keys", "vault"],
    "encryption.topic": ["keys", "topic"],
    "encryption.logs": ["log-groups"],
    "encryption.key": ["keys"],
    "encryption.key-rotation": ["key-rotation"],
    "encryption.key-policy": ["key-policy"],
    "encryption.transport": ["bucket-policy", "cluster-parameters"],
    "retention.opt-in": ["region-settings"],
    "retention.cluster": ["cluster"],
    "retention.deletion-protection": ["cluster"],
    "retention.plan": ["cluster", "plan", "selections"],
    "retention.vault-lock": ["vault"],
    "retention.lifecycle": ["bucket-lifecycle"],
    "retention.versions": ["bucket-lock", "bucket-versioning"],
    "retention.recovery-points": ["recovery-points"],
    "completion.point-in-time": ["cluster"],
    "completion.weekly": ["previous", "recovery-points"],
    "completion.monthly": ["previous", "recovery-points"],
    "completion.daily-sets": ["previous", "sets", "workflows"],
    "completion.logical": ["previous", "sets"],
    "completion.monthly-sets": ["previous", "sets", "workflows"],
    "completion.history": ["plan", "previous", "recovery-points", "sets", "workflows"],
    "completion.failures": ["backup-jobs", "executions"],
    "accessibility.sharing": ["cluster", "snapshot-sharing", "snapshots"],
    "accessibility.bucket": ["bucket-policy", "bucket-public-access", "cluster"],
    "accessibility.vault": ["cluster", "vault-policy"],
    "accessibility.deletion": ["identities", "key-policy", "vault-policy"],
    "accessibility.archives": ["objects", "read-back"],
    "accessibility.recovery-points": ["keys", "recovery-points", "snapshots"],
    "integrity.manifests": ["sets"],
    "integrity.archives": ["objects"],
    "integrity.decode": ["sets"],
    "integrity.trial-restore": ["sets"],
    "integrity.recovery-test": ["documents", "previous", "recovery-tests"],
    "integrity.documents": ["documents", "previous"],
}


def test_every_check_rests_on_observations_that_the_table_names():
    assert list(RESTS_ON) == IDS
    for result in run(healthy(), SETS).results:
        assert {e.name for e in result.evidence} == set(RESTS_ON[result.spec.id]), result.spec.id


@pytest.mark.parametrize(("check", "name"), [(c, name) for c, names in RESTS_ON.items() for name in names])
def test_a_check_is_unknown_without_any_one_of_its_observations(check, name):
    facts = healthy()
    facts["observations"][name] = unobserved("x:Y", AT, "AccessDenied")
    (result,) = (r for r in run(facts, SETS).results if r.spec.id == check)
    assert (result.verdict, "AccessDenied" in result.reason) == (Verdict.UNKNOWN, True)


# --- Nothing but facts can pass --------------------------------------------------------------------------------------


def leaves(value, path=()):
    """Every path into a document, to inner and outer values."""
    yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from leaves(item, (*path, n))


def at(value, path):
    for step in path:
        value = value[step]
    return value


HEALTHY = healthy()
TIERS = {"s3-checksum", "full-decode", "trial-restore"}
BAD = [None, "", "\x00", 0, -1, 1.5, [], {}, [None], "naive 2026-01-01", True, False, "x" * 300, 10**30]


SHOWN = {"legal-holds", "storage"}  # in the report; no check rests on them


# Facts that the rules do not ask about, or that are only shown.
NOT_READ = re.compile(
    r".*/Version|.*/(problem|detail)|.*/may/.+|sets/\d+/manifest/(bytes|seconds)"
    r"|key-policy/document/Statement/0/(?!Effect).+"  # what is allowed is not what is denied
    r"|selections/\d+/name"  # for the message alone
    r"|bucket-lifecycle/4/(prefix|narrowed_by)"  # it does nothing, wherever
    r"|plan/rules/1/(vault|schedule|delete_after_days)"  # a declared rule of the caller's own
    r"|sets/(?!0/)\d+/verification/[^/]+(/(at|detail))?"  # of the newest only
    r"|objects/1/(?:found/)?(bytes|crc32|version)"  # the manifest itself: its digest is what counts
    r"|recovery-tests/[01]/(?!finished).+|recovery-tests/2/(?!finished|outcome).+"
)


def is_read(path):
    """Whether the checks rest on this fact."""
    if len(path) < 2 or path[1] in SHOWN:
        return False
    return not NOT_READ.fullmatch("/".join(str(step) for step in path[1:] if step != "value"))


READ = [path for path in leaves(HEALTHY) if is_read(path)]
# Null is an answer here: "there is no such thing", and the rules know what to make of it.
NULLABLE = {
    "expire_date", "date", "until", "recorded", "tier", "document", "verification", "deletion_date", "min_days",
    "max_days", "version", "ok", "Condition",
}  # fmt: skip


def passes(path, change):
    """Whether every check that rests on this observation still passes when it was changed."""
    name = path[1]
    facts = {**HEALTHY, "observations": {**HEALTHY["observations"]}}
    facts["observations"][name] = copy.deepcopy(facts["observations"][name])
    change(at(facts, path[:-1]), path[-1])
    checks = [spec for spec in CHECKS if name in RESTS_ON[spec.id] and spec.id in ASKED]
    assert checks
    return {r.verdict for r in assess(facts, EXPECTED, NOW, checks=checks).results} == {Verdict.PASS}


# Well-formed texts that no rule can tell from others: names, words that only one of their values has a meaning in.
NAMES = re.compile(
    r".+/(call|name|id|arn|identifier|workflow|stream|state|status|kind|sha256)"
    r"|(documents|objects)/\d+/key|log-groups/\d+/key|recent-objects/groups/\d+/some/\d+"
)
# Lists and objects that may be empty, switches and numbers that may have the other value: each is a good fact.
FINE = re.compile(
    r"backup-jobs|executions|snapshots|identities/principals(/\d+/may)?|previous/(documents|points)"
    r"|.+/(Condition|aws:SecureTransport)|sets/(?!0/)\d+/verification|sets/\d+/newest|cluster/retention_days"
    r"|documents/\d+/bytes|recent-objects/groups/\d+/objects"
)


SPARES = {"Condition", "ArnNotEquals"}  # a denial without them spares nobody


def may_be_fine(path, before, bad):
    """Whether a changed fact is as good as the one before it."""
    where = "/".join(str(step) for step in path[1:] if step != "value")
    if type(bad) is type(before) and bad == before:
        return True
    if bad is None and path[-1] in NULLABLE:
        return True
    return bool((isinstance(before, str) and isinstance(bad, str) and NAMES.fullmatch(where)) or FINE.fullmatch(where))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from([p for p in READ if isinstance(p[-1], str) and p[-1] not in SPARES]))
def test_a_report_without_a_fact_does_not_pass(path):
    assert not passes(path, lambda holder, name: holder.pop(name))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from([p for p in READ if len(p) > 2]), bad=st.sampled_from(BAD))
def test_a_report_with_another_fact_does_not_pass_unless_it_is_as_good(path, bad):
    outcome = passes(path, lambda holder, name: holder.__setitem__(name, bad))  # it never raises
    assert may_be_fine(path, at(HEALTHY, path), bad) or not outcome


@settings(max_examples=40, deadline=None)
@given(paths=st.lists(st.sampled_from(READ), min_size=2, max_size=6), bad=st.sampled_from(BAD))
def test_any_mixture_of_malformed_facts_is_survived(paths, bad):
    facts = copy.deepcopy(HEALTHY)
    for path in paths:
        try:
            at(facts, path[:-1])[path[-1]] = bad
        except (KeyError, TypeError, IndexError):
            continue  # an outer one was replaced already
    assert run(facts).status in set(Status)


@pytest.mark.parametrize("name", sorted(set(HEALTHY["observations"]) - SHOWN))
@pytest.mark.parametrize("how", ["absent", "failed", "stale", "from the future", "naive", "no call"])
def test_an_observation_that_is_not_there_leaves_the_report_incomplete(name, how):
    facts = healthy()
    observation = facts["observations"][name]
    if how == "absent":
        del facts["observations"][name]
    elif how == "failed":
        facts["observations"][name] = unobserved(observation["call"], AT, "AccessDenied")
    elif how == "no call":
        observation["call"] = ""
    else:
        moments = {"stale": NOW - timedelta(days=1), "from the future": NOW + timedelta(days=1)}
        observation["at"] = iso(moments[how]) if how in moments else "2026-11-23T06:00:00"
    assessment = run(facts)
    assert assessment.status is Status.INCOMPLETE
    assert assessment.remediation_needed
    for result in assessment.results:
        if name in {e.name for e in result.evidence}:
            assert result.verdict is Verdict.UNKNOWN, result.spec.id


@pytest.mark.parametrize("facts", [{}, {"observations": None}, {"observations": []}, {"observations": {}}])
def test_no_facts_at_all_leave_every_check_unknown(facts):
    assessment = run(facts)
    assert {r.verdict for r in assessment.results} == {Verdict.UNKNOWN}
    assert assessment.status is Status.INCOMPLETE


def test_zero_checks_are_no_pass():
    assert assess(healthy(), EXPECTED, NOW, checks=()).status is Status.INCOMPLETE
    only = [s for s in CHECKS if s.verification is not Verification.INTEGRITY]
    assert assess(healthy(), EXPECTED, NOW, checks=only).status is Status.INCOMPLETE


def test_a_check_that_breaks_or_examines_nothing_is_unknown():
    def breaks(_read, _expected):
        raise ZeroDivisionError

    def idle(read, _expected):
        read.observation("cluster")
        return Found(Verdict.PASS, "fine", 0)

    def blind(_read, _expected):
        return Found(Verdict.PASS, "fine", 5)

    base = CheckSpec(id="integrity.x", title="x", level=Level.OBSERVED, remedy="x.", run=breaks)
    for body, says in ((breaks, "ZeroDivisionError"), (idle, "nothing to examine")):
        result = assess(healthy(), EXPECTED, NOW, checks=[dataclasses.replace(base, run=body)]).results[0]
        assert (result.verdict, says in result.reason) == (Verdict.UNKNOWN, True)
    result = assess(healthy(), EXPECTED, NOW, checks=[dataclasses.replace(base, run=blind)]).results[0]
    assert result.verdict is Verdict.UNKNOWN


def test_combining_verdicts_gives_the_worst_and_nothing_gives_unknown():
    assert combine([]) is Verdict.UNKNOWN
    assert combine([Verdict.PASS, Verdict.UNKNOWN]) is Verdict.UNKNOWN
    assert combine([Verdict.PASS, Verdict.UNKNOWN, Verdict.FAIL]) is Verdict.FAIL
    assert combine([Verdict.PASS]) is Verdict.PASS


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="now must be timezone-aware"):
        run(healthy(), now=NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="at must be timezone-aware"):
        observed("rds:X", NOW.replace(tzinfo=None), 1)


# --- What time does --------------------------------------------------------------------------------------------------


def test_a_system_deployed_today_is_incomplete_and_says_when_the_first_run_is_due():
    facts = healthy()
    observations = facts["observations"]
    observations["sets"]["value"] = []
    observations["objects"]["value"] = []
    observations["previous"]["value"] = {"points": []}
    observations["workflows"]["value"][0]["created"] = iso(NOW - timedelta(hours=1))
    assert failing(facts) == set()
    assert run(facts).status is Status.INCOMPLETE
    assert "the first is due on 2026-11-28 02:00 UTC" in reason(facts, "completion.logical")


def test_a_first_run_that_did_not_happen_is_a_failure():
    facts = healthy()
    facts["observations"]["sets"]["value"] = []
    facts["observations"]["previous"]["value"] = {"points": []}
    assert "completion.logical" in failing(facts)
    assert "the first was due on 2026-09-05 02:00 UTC" in reason(facts, "completion.logical")


def test_each_named_database_needs_its_own_newest_set():
    expected = dataclasses.replace(EXPECTED, databases=("clinic", "billing"))
    assert "completion.logical" in failing(healthy(), expected)
    assert "logical of billing" in reason(healthy(), "completion.logical", expected)


def test_a_set_whose_verification_failed_is_no_recovery_point():
    facts = healthy()
    facts["observations"]["sets"]["value"][0]["verification"]["s3-checksum"]["ok"] = False
    facts["observations"]["previous"]["value"] = {"points": []}
    later = NOW + timedelta(days=4)
    for observation in facts["observations"].values():
        observation["at"] = iso(later)
    assert "completion.logical" in failing(facts, now=later)


def test_a_database_whose_only_set_failed_its_verification_is_not_overlooked():
    facts = healthy()
    sets = facts["observations"]["sets"]["value"]
    only = copy.deepcopy(sets[0]) | {"database": "billing", "set": "logical-backups/x/billing/y/"}
    only["verification"]["full-decode"]["ok"] = False
    sets.append(only)
    assert {"completion.logical", "integrity.decode"} <= {
        r.spec.id for r in run(facts).results if r.verdict is not Verdict.PASS
    }
    assert "logical of billing" in reason(facts, "completion.logical")


def test_an_archived_object_needs_a_restore_first_and_is_not_inaccessible():
    facts = healthy()
    answer = facts["observations"]["read-back"]["value"]["objects"][0]
    answer |= {"state": "archived", "problem": "InvalidObjectState"}
    assert run(facts).status is Status.PASS
    assert "1 are archived: a restore request is required" in reason(facts, "accessibility.archives")


def test_what_was_written_of_late_is_counted_and_what_was_not_looked_at_is_unknown():
    told = reason(healthy(), "encryption.objects")
    assert told.startswith("40 objects that were written since 2026-11-15 06:00 UTC, and 2 of the newest sets")
    facts = healthy()
    recent = facts["observations"]["recent-objects"]["value"]
    for name, value, says in (
        ("unread", [{"key": "registers/b.json", "problem": "BadRequest"}], "b.json was not looked at: BadRequest"),
        ("since", iso(NOW - timedelta(days=7)), "2026-11-15T06:00:00+00:00 was to be looked at"),
        ("since", iso(NOW - timedelta(days=9)), "2026-11-15T06:00:00+00:00 was to be looked at"),
        ("since", iso(NOW - timedelta(days=4000)), "2026-11-15T06:00:00+00:00 was to be looked at"),
        ("groups", [{"encryption": "aws:kms", "key": KEY, "objects": 9, "some": ["a", "a"]}], "objects once"),
        ("groups", [], "nothing was found"),
    ):
        before, recent[name] = recent[name], value
        (result,) = (r for r in run(facts).results if r.spec.id == "encryption.objects")
        assert (result.verdict, says in result.reason) == (Verdict.UNKNOWN, True)
        facts["observations"]["objects"]["value"][0]["found"]["encryption"] = "AES256"
        assert failing(facts) == {"encryption.objects"}
        facts["observations"]["objects"]["value"][0]["found"]["encryption"] = "aws:kms"
        recent[name] = before


def test_after_a_gap_in_the_reports_everything_written_in_it_is_looked_at():
    facts = healthy()
    facts["observations"]["previous"]["value"]["created"] = iso(NOW - timedelta(days=30))
    (result,) = (r for r in run(facts).results if r.spec.id == "encryption.objects")
    assert (result.verdict, "since 2026-10-22T06:00:00+00:00 was to be" in result.reason) == (Verdict.UNKNOWN, True)
    facts["observations"]["recent-objects"]["value"]["since"] = iso(NOW - timedelta(days=32))
    assert run(facts).status is Status.PASS


@pytest.mark.parametrize(
    ("missing", "weak"),
    [
        ("objects", ["recent-objects", "value", "groups", 0]),
        ("previous", ["recent-objects", "value", "groups", 0]),
        ("recent-objects", ["objects", "value", 0, "found"]),
    ],
)
def test_what_one_observation_shows_to_be_weak_fails_without_the_other(missing, weak):
    facts = healthy()
    at(facts["observations"], weak)["encryption"] = "AES256"
    facts["observations"][missing] = unobserved("s3:GetObject", AT, "AccessDenied")
    assert "encryption.objects" in failing(facts)


def test_an_object_that_s3_says_nothing_of_is_unknown_and_hides_no_other():
    facts = healthy()
    refused, other = facts["observations"]["objects"]["value"]
    refused |= {"found": None, "problem": "BadRequest"}
    results = {r.spec.id: r for r in run(facts).results}
    for check in ("encryption.objects", "integrity.archives"):
        assert (results[check].verdict, "BadRequest" in results[check].reason) == (Verdict.UNKNOWN, True)
    other["found"]["encryption"] = None
    assert failing(facts) == {"encryption.objects"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"state": "unknown", "problem": "SlowDown"}, "SlowDown"),
        ({"problem": "AccessDenied"}, "AccessDenied"),
        ({"state": "archived"}, "problem must be a text"),
        ({"state": "fine", "problem": "?"}, "was not read back"),
    ],
)
def test_what_was_not_certainly_read_archived_or_refused_is_unknown(change, says):
    facts = healthy()
    facts["observations"]["read-back"]["value"]["objects"][0] |= change
    (result,) = (r for r in run(facts).results if r.spec.id == "accessibility.archives")
    assert (result.verdict, says in result.reason) == (Verdict.UNKNOWN, True)


def test_an_object_that_was_answered_for_twice_is_unknown():
    facts = healthy()
    answers = facts["observations"]["read-back"]["value"]["objects"]
    answers.insert(0, {**answers[0], "state": "refused", "problem": "AccessDenied"})
    (result,) = (r for r in run(facts).results if r.spec.id == "accessibility.archives")
    assert (result.verdict, "twice" in result.reason) == (Verdict.UNKNOWN, True)


def test_archives_are_read_back_by_a_named_role_and_what_another_role_read_shows_nothing():
    assert f"2 objects of the newest sets were read under {RESTORER}" in reason(healthy(), "accessibility.archives")
    facts = healthy()
    facts["observations"]["read-back"]["value"]["role"] = "arn:another"
    (result,) = (r for r in run(facts).results if r.spec.id == "accessibility.archives")
    assert (result.verdict, "arn:another" in result.reason) == (Verdict.UNKNOWN, True)
    facts = healthy()
    gone = facts["observations"]["read-back"]["value"]["objects"].pop()
    (result,) = (r for r in run(facts).results if r.spec.id == "accessibility.archives")
    assert (result.verdict, f"{gone['key']} was not read back" in result.reason) == (Verdict.UNKNOWN, True)


def test_the_policy_decides_which_checks_are_asked_for():
    dev = dataclasses.replace(
        EXPECTED, policy=RetentionPolicy.dev(), vault=None, plan_id=None, copy_vaults=(), deletion_protection=False
    )
    asked = {r.spec.id for r in run(healthy(), dev).results}
    assert asked.isdisjoint(
        {"retention.plan", "completion.weekly", "encryption.vault", "retention.deletion-protection"}
    )
    assert {Verification(i.partition(".")[0]) for i in asked} == set(Verification)


def test_a_denial_that_spares_only_break_glass_is_named_in_the_pass():
    assert BREAK_GLASS in reason(healthy(), "encryption.key-policy")
    facts = healthy()
    facts["observations"]["key-policy"]["value"]["document"] = policy_document()
    assert "encryption.key-policy" in failing(facts)


# --- The reader ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("text", 1), ("text", ""), ("text", None), ("flag", 1), ("flag", "true"), ("flag", None), ("number", True),
        ("number", -1), ("number", "1"), ("number", 1.0), ("moment", "2026-01-01T00:00:00"), ("moment", "soon"),
        ("moment", 5), ("each", {}), ("each", "ab"), ("texts", [1]), ("texts", None),
    ],
)  # fmt: skip
def test_the_reader_refuses_a_value_of_another_type_and_names_it(method, value):
    node = Reader({"observations": {"x": observed("a:B", NOW, {"y": value})}}, NOW).observation("x")
    with pytest.raises(FactMissing, match=r"x\.y"):
        getattr(node, method)("y")


def test_the_key_of_the_healthy_facts_is_the_backup_key():
    assert EXPECTED.key_arn == KEY


def test_a_trial_restore_from_the_future_shows_nothing():
    facts = damage(["sets", 0, "verification", "trial-restore", "at"], iso(NOW + timedelta(days=2)))()
    (result,) = (r for r in run(facts, SETS).results if r.spec.id == "integrity.trial-restore")
    assert (result.verdict, "is from the future: 2026-11-25" in result.reason) == (Verdict.UNKNOWN, True)
