"""`aurora-backup evidence verify`: is the evidence whole? From the bucket, or from a copy on disk without any AWS."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aurora_backup.errors import SettingsError
from aurora_backup.evidence import ROOT, Rules, verify
from aurora_backup.evidence_store import EvidenceStore, read_directory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from aurora_backup.evidence import Outcome

KIND = "compliance-report"
_DEFAULT_GAP_HOURS = 26.0  # daily, and two hours for a late start
_DEFAULT_DAYS = 2192  # the most that six calendar years can be


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `evidence verify`."""
    parser.add_argument("action", choices=("verify",))
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--bucket", help="read from S3, and ask it about locks, versions and encryption")
    where.add_argument("--directory", type=Path, help="a copy on disk, such as `aws s3 sync` makes: no AWS is called")
    parser.add_argument("--endpoint-url", help="another S3 than AWS's")
    parser.add_argument("--region", help="default: the AWS environment's")
    parser.add_argument("--owner", help="default: every owner that is found")
    parser.add_argument("--head", help="SHA-256 of the newest record, as its notification published it")
    parser.add_argument(
        "--key", help="ARN of the KMS key that each record and attachment must be under. Default: any KMS key"
    )
    parser.add_argument(
        "--longest-gap-hours",
        type=float,
        default=_DEFAULT_GAP_HOURS,
        help="between two compliance reports; 0 checks no gaps. Default: %(default)s",
    )
    parser.add_argument("--as-of", help="the time up to which there must be evidence, ISO 8601. Default: now")
    parser.add_argument(
        "--keep-days",
        type=int,
        default=_DEFAULT_DAYS,
        help="the least Object Lock, with --bucket. Default: %(default)s",
    )


def run(arguments: argparse.Namespace) -> tuple[int, dict[str, Any], str]:
    """Exit status 0 when everything holds, 1 when it does not."""
    _check_key(arguments)
    store = _store(arguments) if arguments.bucket else None
    objects = store.objects() if store else read_directory(arguments.directory)
    chained = [key for key in objects if key.startswith((f"{ROOT}chain/", f"{ROOT}attachments/"))]
    locks = store.locks(chained) if store else None
    rules = Rules(
        now=_as_of(arguments.as_of),
        longest_gap=timedelta(hours=arguments.longest_gap_hours) if arguments.longest_gap_hours else None,
        gap_kind=KIND,
        head=arguments.head,
        keep_days=arguments.keep_days if store else None,
        key=arguments.key,
    )
    # An owner whose whole chain was deleted is still known by the versions that S3 kept.
    owners = [arguments.owner] if arguments.owner else owners_in({*objects, *(store.every_key() if store else ())})
    outcomes = {owner: verify(objects, owner, rules, locks) for owner in owners}
    whole = bool(outcomes) and not any(o.problems for o in outcomes.values())
    document = {"ok": whole, "owners": {owner: asdict(outcome) for owner, outcome in outcomes.items()}}
    told = "\n".join(_told(owner, outcome) for owner, outcome in outcomes.items()) or "there is no evidence"
    return 0 if whole else 1, document, told


def owners_in(objects: Iterable[str]) -> list[str]:
    """Whose chains there are, from the keys."""
    prefix = f"{ROOT}chain/"
    return sorted({unquote(key.removeprefix(prefix).partition("/")[0]) for key in objects if key.startswith(prefix)})


def _store(arguments: argparse.Namespace) -> EvidenceStore:
    from aurora_backup.policy import Keep
    from aurora_backup.s3 import make_client

    client = make_client(endpoint_url=arguments.endpoint_url, region=arguments.region)
    return EvidenceStore(client, arguments.bucket, "", keep=Keep.for_years(6), mode=None)


def _check_key(arguments: argparse.Namespace) -> None:
    if arguments.key is None:
        return
    if not re.fullmatch(r"arn:[\w-]+:kms:[\w-]+:\d{12}:key/[\w-]+", arguments.key):
        raise SettingsError(
            f"--key must be the ARN of a KMS key, as S3 names it and not an alias, got {arguments.key!r}"
        )
    if not arguments.bucket:
        raise SettingsError("--key needs --bucket: a copy on disk does not say under which key the objects were")


def _as_of(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"--as-of must be an ISO 8601 time, got {text!r}") from None
    if moment.tzinfo is None:
        raise SettingsError(f"--as-of must have a time zone, got {text!r}")
    return moment


def _told(owner: str, outcome: Outcome) -> str:
    span = f"{outcome.first:%Y-%m-%d} to {outcome.last:%Y-%m-%d}" if outcome.first and outcome.last else "nothing"
    said = f"{owner}: {outcome.records} records, {outcome.attachments} attachments, {outcome.documents} documents"
    said += f" beside them ({outcome.unrecorded} not recorded yet), {span}"
    if outcome.problems:
        return "\n".join([f"{said}: {len(outcome.problems)} problems", *(f"  - {p}" for p in outcome.problems)])
    return f"{said}: whole; the newest record is {outcome.head}"
