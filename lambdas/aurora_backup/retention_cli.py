"""The subcommands `forecast`, `hold` and `retention` of `aurora-backup`."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_backup.errors import SettingsError

if TYPE_CHECKING:
    import argparse

    from aurora_backup.holds import Applied, HoldKeeper
    from aurora_backup.policy import RetentionPolicy

    Answer = tuple[int, dict[str, Any], str]


def moment(text: str) -> datetime:
    """An ISO 8601 time with its zone, for argparse."""
    import argparse

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = datetime.min  # noqa: DTZ901  refused below
    if found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"must be an ISO 8601 time with a time zone, got {text!r}")
    return found.astimezone(UTC)


# --- forecast


def forecast_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `forecast`."""
    parser.add_argument(
        "--policy", type=Path, help="the policy's JSON, or a file of changes to hipaa's; default: hipaa"
    )
    parser.add_argument("--region", default="us-east-1", help="of the price table; default: us-east-1")
    parser.add_argument("--prices", type=Path, help="a table of your own, like aurora_backup/data/prices.json")
    parser.add_argument("--size-gb", type=float, required=True, help="the cluster's volume at the start")
    parser.add_argument("--growth", type=float, default=0.0, help="of the volume each month, as a share; default: 0")
    parser.add_argument("--change", type=float, default=0.01, help="of the volume each day, as a share; default: 0.01")
    parser.add_argument("--dump-ratio", type=float, default=0.28, help="size of a dump set over the cluster's")
    parser.add_argument("--on-demand", type=int, default=0, help="snapshots on demand each month; default: 0")
    parser.add_argument("--snapshot-quota", type=int, default=100, help="of the Region; default: 100")
    parser.add_argument("--start", type=date.fromisoformat, help="the first day; default: today")
    parser.add_argument("--years", type=int, help="default: a year more than the longest retention, and at least 7")
    parser.add_argument("--on", type=date.fromisoformat, help="list the points that exist at the end of this day")
    parser.add_argument("--html", type=Path, help="write the page here")


def forecast(arguments: argparse.Namespace) -> Answer:
    """Simulate the policy and, where it has a monthly tier, the cheaper design beside it."""
    from aurora_backup.forecast import Prices, Workload, cheaper, list_prices, longest_days, simulate
    from aurora_backup.forecast_page import render

    policy = _policy(arguments.policy)
    prices = Prices.from_table(_json(arguments.prices) if arguments.prices else list_prices(), arguments.region)
    workload = Workload(
        size_gb=arguments.size_gb,
        growth=arguments.growth,
        change=arguments.change,
        dump_ratio=arguments.dump_ratio,
        on_demand=arguments.on_demand,
    )
    start = arguments.start or datetime.now(UTC).date()
    days = (arguments.years * 366) if arguments.years else longest_days(policy)
    if arguments.on is not None:
        days = (arguments.on - start).days + 1
    done = simulate(policy, workload, prices, start=start, days=days, quota=arguments.snapshot_quota)
    document = done.document()
    if arguments.on is not None:
        points = sorted(done.existing, key=lambda p: p.identifier)
        document["on"] = arguments.on.isoformat()
        document["points"] = [{"identifier": p.identifier, "created": str(p.created), "bytes": p.size} for p in points]
        return 0, document, "\n".join(p.identifier for p in points)
    design = cheaper(policy)
    beside = simulate(design, workload, prices, start=start, days=days) if design else None
    document["cheaper"] = beside.document() if beside else None
    if arguments.html:
        arguments.html.write_text(render(done, beside), encoding="utf-8")
    currency, last = prices.currency, done.days[-1]
    ends = f"{currency} {last.cost:,.2f} a month at the end, at most {done.peak_snapshots} snapshots of "
    told = [f"{start} to {last.date}, {prices.region}, prices of {prices.as_of}:"]
    told += [f"{currency} {done.total_cost:,.2f} in all, {ends}{document['snapshot_quota']}"]
    told += [
        f"  {held.tier} ({held.kind}): {held.count} from {held.oldest} to {held.newest}, {held.gb:,.0f} GB, "
        f"{currency} {held.cost:,.2f} a month"
        for held in last.tiers
    ]
    if beside:
        told.append(
            f"with the longest tier as dump sets in Deep Archive: {currency} {beside.total_cost:,.2f} in all, "
            f"{currency} {beside.days[-1].cost:,.2f} a month at the end, at most {beside.peak_snapshots} snapshots"
        )
    return 0, document, "\n".join(told)


def _policy(path: Path | None) -> RetentionPolicy:
    from aurora_backup.policy import PolicyError, RetentionPolicy

    if path is None:
        return RetentionPolicy.hipaa()
    data = _json(path)
    try:
        whole = isinstance(data, dict) and "schema" in data
        return RetentionPolicy.from_json(json.dumps(data)) if whole else RetentionPolicy.hipaa().with_changes(data)
    except PolicyError as error:
        raise SettingsError(f"--policy {path}: {error}") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} must be a readable JSON file: {error}") from None


# --- hold


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bucket", required=True, help="the backup bucket")
    parser.add_argument("--owner", required=True, help="whose holds: OWNER in the functions' environment")
    parser.add_argument("--kms-key", help="encrypt what is written with this key; default: the bucket's own")
    parser.add_argument("--endpoint-url", help="another AWS than AWS's")
    parser.add_argument("--region", help="default: the AWS environment's")
    parser.add_argument("--who", help="who says so")
    parser.add_argument("--why", help="and why")


def hold_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `hold`."""
    parser.add_argument("action", choices=("place", "list", "release"))
    _where(parser)
    parser.add_argument("--matter", help="what the hold is for; required to place and to release")
    parser.add_argument("--point", action="append", default=[], help="ARN of a snapshot or key of a set; repeatable")
    group = parser.add_argument_group("AWS Backup", "it holds by vault, resource and time, not point by point")
    group.add_argument("--aws-backup", action="store_true", help="place or list a hold of AWS Backup")
    group.add_argument("--vault", action="append", default=[], help="repeatable")
    group.add_argument("--resource", action="append", default=[], help="ARN of a cluster; repeatable")
    group.add_argument("--from", dest="since", type=moment, help="ISO 8601 with time zone")
    group.add_argument("--to", type=moment, help="ISO 8601 with time zone")
    group.add_argument("--hold-id", help="which of AWS Backup's holds to release")


def hold(arguments: argparse.Namespace) -> Answer:
    """Place, list or release."""
    from aurora_backup.holds import aws_backup_holds

    keeper = _keeper(arguments)
    if arguments.action == "list":
        holds = [{**asdict(h), "since": h.since.isoformat()} for h in keeper.holds()]
        events = [{**asdict(e), "at": e.at.isoformat()} for e in keeper.events()]
        document: dict[str, Any] = {"ok": True, "holds": holds, "events": events}
        if arguments.aws_backup:
            document["aws_backup"] = aws_backup_holds(_client(arguments, "backup"))
        told = [f"{h['matter']}: {len(h['points'])} points since {h['since']}, {h['who']}: {h['why']}" for h in holds]
        return 0, document, "\n".join(told) or "nothing is held"
    for name in ("matter", "who", "why"):
        if not getattr(arguments, name):
            raise SettingsError(f"--{name} must be given to {arguments.action} a hold")
    if arguments.aws_backup:
        return _in_aws_backup(arguments, keeper)
    change = keeper.place if arguments.action == "place" else keeper.release
    done = change(arguments.matter, arguments.point, who=arguments.who, why=arguments.why, at=datetime.now(UTC))
    return _applied(arguments.action, arguments.matter, done)


def _in_aws_backup(arguments: argparse.Namespace, keeper: HoldKeeper) -> Answer:
    """AWS Backup first: its hold has no id before. Told again, it gives the same hold, and the register follows."""
    from aurora_backup.holds import IN_AWS_BACKUP, HoldEvent, hold_in_aws_backup, release_in_aws_backup

    backup = _client(arguments, "backup")
    about = {"matter": arguments.matter, "who": arguments.who, "why": arguments.why, "at": datetime.now(UTC)}
    # What the register would refuse is refused before AWS Backup is told.
    HoldEvent(action="placed", owner=arguments.owner, points=(IN_AWS_BACKUP,), **about)
    if arguments.action == "release":
        if not arguments.hold_id:
            raise SettingsError("--hold-id must be given to release a hold of AWS Backup")
        keeper.require_in_aws_backup(arguments.hold_id, arguments.matter)
        release_in_aws_backup(backup, arguments.hold_id, why=f"{arguments.who}: {arguments.why}")
        key = keeper.register_in_aws_backup("released", arguments.hold_id, **about)
        return 0, {"ok": True, "hold_id": arguments.hold_id, "evidence": key}, f"released {arguments.hold_id}"
    if not (arguments.since and arguments.to and (arguments.vault or arguments.resource)):
        raise SettingsError("--from, --to and --vault or --resource must be given to place a hold of AWS Backup")
    made = hold_in_aws_backup(
        backup,
        matter=arguments.matter,
        why=f"{arguments.who}: {arguments.why}",
        vaults=arguments.vault,
        resources=arguments.resource,
        since=arguments.since,
        to=arguments.to,
    )
    key = keeper.register_in_aws_backup("placed", made, **about)
    return 0, {"ok": True, "hold_id": made, "evidence": key}, f"AWS Backup holds it as {made}"


def _applied(action: str, matter: str, done: tuple[Applied, ...]) -> Answer:
    ok = all(each.ok for each in done)
    told = [f"{matter}: {each.point}: {each.detail}{'' if each.ok else ' (FAILED)'}" for each in done]
    if not ok:
        told.append("the register holds every point; the stores marked FAILED do not refuse a deletion by themselves")
    document = {"ok": ok, "action": action, "matter": matter, "points": [asdict(each) for each in done]}
    return (0 if ok else 1), document, "\n".join(told)


def _keeper(arguments: argparse.Namespace) -> HoldKeeper:
    from aurora_backup.holds import HoldKeeper
    from aurora_backup.rds import Rds
    from aurora_backup.s3 import Bucket, make_client

    client = make_client(endpoint_url=arguments.endpoint_url, region=arguments.region)
    bucket = Bucket(client, arguments.bucket, kms_key=arguments.kms_key)
    return HoldKeeper(bucket=bucket, rds=Rds(_client(arguments, "rds")), owner=arguments.owner)


def _client(arguments: argparse.Namespace, service: str) -> Any:
    import boto3

    return boto3.client(service, endpoint_url=arguments.endpoint_url, region_name=arguments.region)


# --- retention


def retention_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `retention`."""
    parser.add_argument(
        "action", choices=("show", "confirm"), help="show the last plan; or the second yes to enforce it"
    )
    _where(parser)


def retention(arguments: argparse.Namespace) -> Answer:
    """Show the last plan, or say yes a second time."""
    from aurora_backup.s3 import Bucket, make_client
    from aurora_backup.sweep import confirm, folder

    client = make_client(endpoint_url=arguments.endpoint_url, region=arguments.region)
    bucket = Bucket(client, arguments.bucket, kms_key=arguments.kms_key)
    if arguments.action == "confirm":
        if not (arguments.who and arguments.why):
            raise SettingsError("--who and --why must be given to confirm")
        key = confirm(bucket, arguments.owner, who=arguments.who, why=arguments.why, at=datetime.now(UTC))
        return 0, {"ok": True, "key": key}, f"plans of {arguments.owner} may be acted on from now on, see {key}"
    pointer = bucket.read_json(f"{folder(arguments.owner)}latest.json")
    plan = bucket.read_json(pointer["plan"]) if pointer else None
    if plan is None:
        return 1, {"ok": False, "plan": None}, f"{arguments.owner} has no plan yet"
    told = [f"{plan['now']} ({plan['mode']}): {pointer['plan']}"]
    told += [f"REFUSED: {reason}" for reason in plan["refused"]]
    told += [f"{d['action']:6} {d['identifier']}: {d['reason']}" for d in plan["decisions"]]
    told += [f"FINDING {f['rule']}: {f['subject']}: {f['message']}" for f in plan["findings"]]
    return (1 if plan["refused"] else 0), {"ok": not plan["refused"], **plan}, "\n".join(told)
