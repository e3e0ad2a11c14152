"""Integrity: the newest sets are what was written, and a restore of them was queried, not long ago. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from aurora_backup.checks_completion import longest_gap
from aurora_backup.checks_encryption import looked_at
from aurora_backup.compliance import CheckSpec, Expected, Found, Level, Tally, unknown
from aurora_backup.compliance_facts import FactMissing
from aurora_backup.evidence import ROOT
from aurora_backup.policy import Prefix
from aurora_backup.retention import LATE

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from aurora_backup.compliance_facts import Node, Reader

_DECODE = ("s3-checksum", "full-decode")
_TRIAL = "trial-restore"
RESTORED = "RESTORED"
TESTS = f"{ROOT}recovery-tests/"


def _has_sets(expected: Expected) -> bool:
    return bool(expected.policy.dump_schedules())


def _manifests(read: Reader, _expected: Expected) -> Found:
    def look(item: Node) -> str | None:
        manifest = item.at("manifest")
        return None if manifest.flag("ok") else f"{item.text('set')}: {manifest.text('problem')}"

    tally = Tally().look(read.observation("sets").each(), look)
    return tally.conclude(f"{tally.examined} manifests have the digest that they were written with")


def _archives(read: Reader, _expected: Expected) -> Found:
    def look(item: Node) -> str | None:
        key, recorded = item.text("key"), item.at("recorded")
        looked_at(item)
        if item.is_null("found"):
            return f"{key} is not there"
        found = item.at("found")
        if not (found.is_null("version") or recorded.is_null("version")):
            version = recorded.text("version")
            if found.text("version") != version:
                return f"{key} was overwritten: the manifest names version {version}, now it is {found.text('version')}"
        if found.number("bytes") != recorded.number("bytes"):
            return f"{key} has {found.number('bytes')} bytes, the manifest says {recorded.number('bytes')}"
        if found.text("crc32") != recorded.text("crc32"):
            return f"{key} has the CRC32 {found.text('crc32')}, the manifest says {recorded.text('crc32')}"
        return None

    tally = Tally().look([o for o in read.observation("objects").each() if not o.is_null("recorded")], look)
    return tally.conclude(f"{tally.examined} archives of the newest sets have the size and CRC32 of their manifests")


def _newest_sets(read: Reader, expected: Expected) -> list[Node]:
    """Of what the policy makes by schedule; a set that somebody made by hand is verified by whoever made it."""
    scheduled = {dump.prefix.value for dump in expected.policy.dump_schedules()}
    newest = [item for item in read.observation("sets").each() if item.flag("newest")]
    return [item for item in newest if item.text("prefix") in scheduled]


def _tier(item: Node, name: str) -> Node | None:
    """What the verification record says of a tier; None when there is no record, or the tier did not run."""
    if item.is_null("verification"):
        return None
    tiers = dict(item.at("verification").members())
    return None if name not in tiers or tiers[name].is_null("ok") else tiers[name]


def _decoded(read: Reader, expected: Expected) -> Found:
    def look(item: Node) -> str | None:
        name, started = item.text("set"), item.moment("started")
        for kind in _DECODE:
            tier = _tier(item, kind)
            if tier is None:
                raise FactMissing(f"{name}: {kind} was not run")
            if not tier.flag("ok"):
                return f"{name}: {kind} failed: {tier.text('detail')}"
            if tier.moment("at") < started:
                raise FactMissing(f"{name}: {kind} is from before the set was made")
        return None

    tally = Tally().look(_newest_sets(read, expected), look)
    return tally.conclude(f"every byte of {tally.examined} newest sets was read back and decoded")


def _trial(read: Reader, expected: Expected) -> Found:
    logical = expected.policy.logical
    schedule = logical.trial_restore if logical else None
    if schedule is None:
        return unknown("the policy has no trial restore")
    allowed = longest_gap(schedule) + LATE
    newest: dict[str, tuple[datetime, Node, str]] = {}
    databases = set()
    for item in read.observation("sets").each():
        if item.text("prefix") != Prefix.LOGICAL:
            continue
        database = item.text("database")
        databases.add(database)
        tier = _tier(item, _TRIAL)
        if tier is not None and (database not in newest or tier.moment("at") > newest[database][0]):
            newest[database] = (tier.moment("at"), tier, item.text("set"))
    tally = Tally(examined=len(databases))
    for database in sorted(databases):
        if database not in newest:
            tally.unknown.append(f"no set of {database} was restored on trial yet")
            continue
        at, tier, name = newest[database]
        if not tier.flag("ok"):
            tally.problems.append(f"the trial restore of {name} failed: {tier.text('detail')}")
        elif at > read.now + LATE:
            tally.unknown.append(f"the last trial restore of {database} is from the future: {at:%Y-%m-%d}: {name}")
        elif read.now - at > allowed:
            tally.problems.append(f"the last trial restore of {database} was on {at:%Y-%m-%d}: {name}")
    return tally.conclude(f"a set of each of {len(databases)} databases was restored and compared")


def _recovery_test(read: Reader, expected: Expected) -> Found:
    allowed = timedelta(days=expected.policy.recovery_testing.max_age_days)
    tests = sorted(read.observation("recovery-tests").each(), key=lambda test: test.moment("finished"))
    if not tests:
        return unknown("no recovery test has ended yet")
    last = tests[-1]
    finished, outcome = last.moment("finished"), last.text("outcome")
    age, tally = read.now - finished, Tally()
    when = f"{finished:%Y-%m-%d %H:%M} UTC"
    tally.need(outcome == RESTORED, f"the last recovery test, of {when}, ended {outcome}")
    tally.need(age <= allowed, f"the last recovery test is of {when}, {age.days} days old; allowed are {allowed.days}")
    if finished > read.now + LATE:
        return unknown(f"the last recovery test is from the future: {when}")
    named, rewritten = _rewritten(read, lambda key: key.startswith(TESTS))
    tally.examined += named
    tally.problems += rewritten
    return tally.conclude(f"a restored copy was queried on {when}, and all four validations passed")


def _rewritten(read: Reader, wanted: Callable[[str], bool]) -> tuple[int, list[str]]:
    """How many documents the report before named, and which of them are not as it named them."""

    def content(items: list[Node]) -> dict[str, tuple[str, int]]:
        return {item.text("key"): (item.text("sha256"), item.number("bytes")) for item in items}

    now = content(read.observation("documents").each())
    before = content(read.observation("previous").each("documents"))
    mine = {key: recorded for key, recorded in before.items() if wanted(key)}
    gone = [f"{key} was there at the report before and is gone" for key in mine if key not in now]
    changed = [f"{key} was written again after it was recorded" for key in mine if now.get(key, mine[key]) != mine[key]]
    return len(mine), [*gone, *changed]


def _documents(read: Reader, _expected: Expected) -> Found:
    named, problems = _rewritten(read, lambda key: not key.startswith(TESTS))
    # The complete list is itself a fact: before anything was recorded, nothing was rewritten.
    tally = Tally(examined=named + 1, problems=problems)
    return tally.conclude(f"{named} plans, holds and recoveries are as the report before recorded them")


INTEGRITY = (
    CheckSpec(
        id="integrity.manifests",
        title="Every manifest is the one that was written",
        level=Level.OBSERVED,
        remedy="Do not restore the named set as it is. Its manifest's first version is in the bucket's old versions: "
        "compare, put it back, and find out from CloudTrail who wrote over it.",
        run=_manifests,
        applies=_has_sets,
    ),
    CheckSpec(
        id="integrity.archives",
        title="The archives of the newest sets have the version, size and checksum of their manifests",
        level=Level.OBSERVED,
        remedy="The version that the manifest names is still in the bucket: restore from it, or put it back; find out "
        "from CloudTrail who wrote over it, and start a new logical backup.",
        run=_archives,
        applies=_has_sets,
    ),
    CheckSpec(
        id="integrity.decode",
        title="Every byte of the newest sets was read back and decoded",
        level=Level.OBSERVED,
        remedy="Run `aurora-backup verify` on the named set; when it fails, start a new logical backup now.",
        run=_decoded,
        applies=_has_sets,
    ),
    CheckSpec(
        id="integrity.trial-restore",
        title="A dump set of each database was restored and compared, no longer ago than the schedule allows",
        level=Level.RESTORED,
        remedy="Run `aurora-backup verify --tier trial-restore` on the newest set, and mend what it names.",
        run=_trial,
        applies=lambda e: e.policy.logical is not None and e.policy.logical.trial_restore is not None,
    ),
    CheckSpec(
        id="integrity.recovery-test",
        title="The last recovery test restored a copy and checked it, no longer ago than the policy allows",
        level=Level.RESTORED,
        remedy="Start the RecoveryTest workflow now, and mend what its report names. A report that was rewritten has "
        "its first version in the bucket's old versions.",
        run=_recovery_test,
    ),
    CheckSpec(
        id="integrity.documents",
        title="Plans, legal holds and recoveries are as the reports recorded them",
        level=Level.OBSERVED,
        remedy="The first version of each named document is in the bucket's old versions: put it back, and find out "
        "from CloudTrail who wrote over it. `aurora-backup evidence verify` checks those of every report.",
        run=_documents,
    ),
)
