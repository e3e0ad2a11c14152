"""The retention steps: a plan that deletes nothing, a legal hold that holds, and an enforced plan that deletes exactly.

Time is given to the deployed workflow, as its schedule does: nothing waits, and no clock is changed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from aurora_backup.policy import RetentionPolicy
from aurora_backup.schedule import require_utc
from drill.foundation import read_json, schedule_named
from drill.journal import StepFailedError

if TYPE_CHECKING:
    from drill.journal import Step
    from drill.world import World

_WHO = ("--who", "drill@example.org", "--why", "the drill")
_MATTER = "Drill v. Clinic"


def retention_report(world: World, step: Step) -> None:
    """The scheduled plan as it is by default: every point with its reason, and nothing deleted."""
    before = _points(world)
    arn = world.aws.run_schedule(schedule_named(world, "RetentionWorkflow"))["executionArn"]
    output = world.finish(arn)
    plan = read_json(world, output["plan"]["plan"])
    step.require(plan["mode"] == "report", f"nobody asked to enforce, got {plan['mode']}")
    step.require(plan["refused"] == [], f"the plan must stand, got {plan['refused']}")
    step.require(output["done"]["deleted"] == 0, f"nothing may be deleted, got {output['done']}")
    step.require(_points(world) == before, "nothing may be gone")
    seen = {d["identifier"] for d in plan["decisions"]}
    step.require(before <= seen, f"every point must have its decision, {sorted(before - seen)} has none")
    step.detail["tiers"] = _counted(plan)
    step.detail["headline"] = f"{len(plan['decisions'])} points, each kept with its reason; nothing deleted"


def legal_hold(world: World, step: Step) -> None:
    """Held by the command that counsel would ask for; released again; both are evidence."""
    arn, key = _snapshot(world), _oldest_set(world)
    placed = world.command_line(
        "hold", "place", *_where(world), *_WHO, "--matter", _MATTER, "--point", arn, "--point", key
    )
    step.require(all(p["ok"] for p in placed["points"]), f"each store must refuse by itself, got {placed['points']}")
    tags = {t["Key"]: t["Value"] for t in _described(world, arn)["TagList"]}
    step.require(tags.get("aurora-backup:legal-hold") == _MATTER, f"the snapshot must say so, got {tags}")
    s3, bucket = world.aws.client("s3"), world.outputs["BackupBucket"]
    versions = s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
    for version in versions:
        try:
            s3.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
        except s3.exceptions.ClientError:
            continue
        raise StepFailedError(f"S3 must refuse to delete a version of {version['Key']}, and did not")
    _enforce(world)
    plan, result = _run(world, _later(world, arn), "drill-held")
    rules = {d["identifier"]: d["rule"] for d in plan["decisions"]}
    step.require((rules[arn], rules[key]) == ("held", "held"), f"both must be held, got {rules[arn]}, {rules[key]}")
    gone = [o["identifier"] for o in result["outcomes"] if o["state"] == "deleted"]
    step.require({arn, key}.isdisjoint(gone), f"what is held must stay, {gone} went")
    released = world.command_line("hold", "release", *_where(world), *_WHO, "--matter", _MATTER)
    step.require(released["ok"], f"the release must reach each store, got {released['points']}")
    events = world.command_line("hold", "list", *_where(world))["events"]
    actions = [e["action"] for e in events if e["matter"] == _MATTER]
    step.require(actions == ["placed", "released"], f"placing and releasing are evidence, got {actions}")
    step.detail["held"] = [arn, key]
    step.detail["headline"] = f"a snapshot and {len(versions)} object versions refused to go while held; released"


def retention_enforce(world: World, step: Step) -> None:
    """Exactly what the policy lets go, by the time that the workflow was given; everything else still there."""
    _enforce(world)
    arn, before = _snapshot(world), _points(world)
    now = _later(world, arn)
    expected = _expired(world, now)
    step.require(arn in expected, f"the snapshot must be expired by {now}, expected {expected}")
    plan, result = _run(world, now, "drill-enforced")
    step.require(plan["refused"] == [], f"the plan must stand, got {plan['refused']}")
    gone = {o["identifier"] for o in result["outcomes"] if o["state"] == "deleted"}
    step.require(gone == expected, f"exactly {sorted(expected)} must go, {sorted(gone)} went")
    left = _points(world)
    step.require(left == before - expected, f"everything else must be there, {sorted(before - expected - left)} is not")
    again = _run(world, now, "drill-enforced-again")[1]
    step.require(not again["outcomes"], f"running twice changes nothing, got {again['outcomes']}")
    step.detail["deleted"] = sorted(gone)
    step.detail["tiers"] = _counted(plan)
    step.detail["headline"] = f"as of {now:%Y-%m-%d}: {len(gone)} expired points deleted, {len(left)} others untouched"


def _where(world: World) -> list[str]:
    return [
        "--bucket", world.outputs["BackupBucket"], "--owner", _environment(world, "plan_retention")["OWNER"],
        "--endpoint-url", world.aws.endpoint_url,
    ]  # fmt: skip


def _functions(world: World, handler: str) -> list[dict[str, Any]]:
    pages = world.aws.client("lambda").get_paginator("list_functions").paginate()
    wanted = f"aurora_backup.handlers.{handler}.handler"
    return [f for page in pages for f in page["Functions"] if f["Handler"] == wanted]


def _environment(world: World, handler: str) -> dict[str, str]:
    return dict(_functions(world, handler)[0]["Environment"]["Variables"])


def _enforce(world: World) -> None:
    """What deploying a policy with sweep.enforce does to the functions, and the second yes by command."""
    changes = {"sweep": {"enforce": True, "max_share": 1.0}}
    for handler in ("plan_retention", "act_on_retention"):
        for function in _functions(world, handler):
            variables = dict(function["Environment"]["Variables"])
            policy = RetentionPolicy.from_json(variables["RETENTION_POLICY"]).with_changes(changes)
            world.aws.client("lambda").update_function_configuration(
                FunctionName=function["FunctionName"], Environment={"Variables": {**variables, **policy.environment()}}
            )
    world.command_line("retention", "confirm", *_where(world), *_WHO)


def _run(world: World, now: datetime, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    states = world.aws.client("stepfunctions")
    machines = states.list_state_machines()["stateMachines"]
    (machine,) = [m["stateMachineArn"] for m in machines if "RetentionWorkflow" in m["name"]]
    given = json.dumps({"started": now.isoformat(), "ahead_of_clock": True})
    started = states.start_execution(stateMachineArn=machine, name=name, input=given)
    output = world.finish(started["executionArn"])
    return read_json(world, output["plan"]["plan"]), read_json(world, output["done"]["result"])


def _manual(world: World) -> list[dict[str, Any]]:
    pages = world.aws.client("rds").get_paginator("describe_db_cluster_snapshots").paginate(SnapshotType="manual")
    resource_id = world.cluster()["DbClusterResourceId"]
    return [s for page in pages for s in page["DBClusterSnapshots"] if s["DbClusterResourceId"] == resource_id]


def _described(world: World, arn: str) -> dict[str, Any]:
    return next(s for s in _manual(world) if s["DBClusterSnapshotArn"] == arn)


def _snapshot(world: World) -> str:
    """The snapshot on demand that is the first to expire."""
    ours = [s for s in _manual(world) if any(t["Key"] == "aurora-backup:owner" for t in s["TagList"])]
    return str(min(ours, key=lambda s: s["SnapshotCreateTime"])["DBClusterSnapshotArn"])


def _later(world: World, arn: str) -> datetime:
    """A moment after the snapshot's time is over: the workflow is told that it has not come."""
    created = require_utc(_described(world, arn)["SnapshotCreateTime"], "created")
    policy = RetentionPolicy.from_json(_environment(world, "plan_retention")["RETENTION_POLICY"])
    return policy.on_demand.keep.until(created) + timedelta(seconds=1)


def _sets(world: World) -> dict[str, datetime]:
    """Every set of the cluster that has its manifest, and when that was written."""
    s3, bucket = world.aws.client("s3"), world.outputs["BackupBucket"]
    resource_id = world.cluster()["DbClusterResourceId"]
    found = {}
    for prefix in ("automated", "manual", "logical", "compliance"):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}-backups/{resource_id}/")
        for item in (i for page in pages for i in page.get("Contents", [])):
            if item["Key"].endswith("/manifest.json"):
                found[item["Key"].removesuffix("manifest.json")] = item["LastModified"].astimezone(UTC)
    return found


def _oldest_set(world: World) -> str:
    sets = _sets(world)
    return min(sets, key=lambda key: sets[key])


def _points(world: World) -> set[str]:
    return {str(s["DBClusterSnapshotArn"]) for s in _manual(world)} | set(_sets(world))


def _expired(world: World, now: datetime) -> set[str]:
    """Worked out here, not asked of the program: what is past its time, but the newest set of each place."""
    policy = RetentionPolicy.from_json(_environment(world, "plan_retention")["RETENTION_POLICY"])
    logical = policy.logical
    keeps = {"manual": policy.on_demand.keep, "logical": logical.keep if logical else policy.on_demand.keep}
    found = {
        str(s["DBClusterSnapshotArn"])
        for s in _manual(world)
        if any(t["Key"] == "aurora-backup:owner" for t in s["TagList"])
        and policy.on_demand.keep.until(s["SnapshotCreateTime"]) <= now
    }
    sets = _sets(world)
    for key, written in sets.items():
        prefix, parent = key.partition("-")[0], key.rstrip("/").rpartition("/")[0]
        newest = max((w, k) for k, w in sets.items() if k.startswith(f"{parent}/"))[1]
        last = key == newest  # of each place the newest good set is guarded, whatever its age
        if prefix in keeps and keeps[prefix].until(written) <= now and not last:
            found.add(key)
    return found


def _counted(plan: dict[str, Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for decision in plan["decisions"]:
        name = f"{decision['tier'] or 'no tier'}: {decision['action']}"
        counts[name] = counts.get(name, 0) + 1
    return counts
