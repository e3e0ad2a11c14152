"""Every task state of every recovery workflow fails in every way: it finishes, or it stops with an alert.

It leaves nothing behind, and production is never touched. The definitions are the synthesised ones, run by MiniStack's
interpreter in-process.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import timedelta
from functools import cache

import pytest
from ministack.services import stepfunctions

from tests.recovery_stack import environment_of, machine, task_states
from tests.recovery_world import PROD, PROD_ID, Killed, World, invoke_handler, refused

REQUESTS = {
    "Baselines": {},
    "OnDemandSnapshot": {"description": "before the migration"},
    "PointInTimeRecovery": {"target_cluster_id": "rescued", "target_time": "2026-11-02T06:00:00Z"},
    "RecoveryTest": {"tier": "on-demand"},
    "NativeRestoreTest": {"restore_job": "job-1"},
}
# Written down, so that no process has to synthesise the stack to know what tests there are.
TASKS = {
    "Baselines": ["Remember the source", "Take a baseline", "Alert"],
    "OnDemandSnapshot": ["Remember the source", "Take a baseline", "Start", "Watch", "Notify", "Alert"],
    "PointInTimeRecovery": [
        "Check the request",
        "Restore",
        "Read the recovered cluster",
        "Judge",
        "Hand over",
        "Notify",
        "Alert",
    ],
    "RecoveryTest": [
        "Choose a recovery point",
        "Remember the source",
        "Take a baseline",
        "Restore",
        "Read the copy",
        "Judge",
        "Clean up",
        "Alert",
        "Notify",
    ],
    "NativeRestoreTest": [
        "Find the restored cluster",
        "Remember the source",
        "Take a baseline",
        "Add an instance",
        "Read the copy",
        "Judge",
        "Answer",
        "Clean up",
        "Answer that it failed",
        "Alert",
    ],
}
STATES = [(workflow, state) for workflow, states in TASKS.items() for state in states]
ENDINGS = {"Alert", "Answer that it failed"}  # states that only a failure reaches
FIRST_TO_BREAK = {"Read the copy", "Judge", "Start", "Take a baseline"}  # what fails so that they are reached


def new_world():
    return copy.deepcopy(_first_world())


@cache
def _first_world():
    """What production looks like after a day; made once, because hundreds of tests begin there."""
    world = World()
    invoke_handler(world, "remember_cluster", environment_of("remember_cluster"), {})
    invoke_handler(
        world,
        "take_baseline",
        environment_of("take_baseline"),
        {"database_endpoint": {"host": "prod.example", "port": 5432}},
    )
    world.clock.advance(3600)
    world.add_snapshot("yesterdays", age=timedelta(minutes=30))
    point = world.snapshots["yesterdays"].described["DBClusterSnapshotArn"]
    world.restore_jobs["job-1"] = {
        "CreatedResourceArn": "arn:aws:rds:eu-west-1:111122223333:cluster:awsbackup-restore-test-1",
        "CreatedBy": {"RestoreTestingPlanArn": "arn:plan"},
        "RecoveryPointArn": point,
    }
    world._add_cluster("awsbackup-restore-test-1", {}, ready=True)
    world.calls.clear()
    return world


def run(workflow, world, *, on_state=None, pace=1.0):
    driven = machine(workflow)
    driven.pace = pace
    if on_state:
        driven.on_state = on_state
    return driven.run(world, REQUESTS[workflow])


def sweep_until_clean(world):
    """The janitor runs every half hour; return how often it had to before nothing was left."""
    world.fault = lambda _call, _when: None
    world.stuck = set()
    world.clock.advance(13 * 3600)
    for count in range(12):
        if not world.test_copies():
            return count
        invoke_handler(world, "sweep_leftovers", environment_of("sweep_leftovers"), {"now": world.clock.iso()})
        world.clock.advance(1800)
        world.settle()
    raise AssertionError(f"left over after a sweep of six hours: {world.test_copies()}")


def check(workflow, world, before, record, *, alerted=True):
    """What must hold however a run went."""
    assert world.production() == before, "production was changed"
    if record["status"] == "FAILED":
        assert record["error"] != "States.Runtime", record["cause"]
        if alerted:
            (alert,) = [p for p in world.published if p["Subject"] == f"{name_of(workflow)} failed"]
            assert alert["Message"]["cause"]
            assert alert["Message"]["step"] in machine(workflow).definition["States"]
    made = [c for c in world.calls if c.operation.startswith(("restore_db", "create_db_instance"))]
    for call in made:
        tags = {tag["Key"]: tag["Value"] for tag in call.parameters["Tags"]}
        assert tags["aurora-backup:execution"] == "run-1"
    sweep_until_clean(world)
    assert world.production() == before
    kept = {PROD, "awsbackup-restore-test-1"} | ({"rescued"} if "rescued" in world.clusters else set())
    assert set(world.clusters) == kept


def name_of(workflow):
    return {"Baselines": "Baseline"}.get(workflow, workflow)


@pytest.mark.parametrize("workflow", REQUESTS)
def test_without_a_failure_every_workflow_succeeds_and_leaves_no_copy(workflow):
    world = new_world()
    before = world.production()
    visited = []
    record = run(workflow, world, on_state=lambda name, _attempt, _when: visited.append(name))
    assert record["status"] == "SUCCEEDED", record.get("cause")
    assert world.test_copies() == [], "the workflow itself has to clean up"
    check(workflow, world, before, record)
    assert set(task_states(workflow)) == set(TASKS[workflow]), "the states that the tests below break, one by one"
    assert set(TASKS[workflow]) - set(visited) <= ENDINGS


def failing(target, error, *, when="before", times=10_000):
    def on_state(name, attempt, moment):
        if name == target and moment == when and attempt <= times:
            raise error

    return on_state


def sfn_error(name):
    return stepfunctions._ExecutionError(name, json.dumps({"errorMessage": f"injected {name}", "errorType": name}))


KINDS = {
    "error": lambda s: failing(s, sfn_error("SomethingBroke")),
    "error after its effect": lambda s: failing(s, sfn_error("SomethingBroke"), when="after"),
    "throttled once": lambda s: failing(s, sfn_error("Lambda.TooManyRequestsException"), times=1),
    "throttled for ever": lambda s: failing(s, sfn_error("Lambda.TooManyRequestsException")),
    "timeout once, after its effect": lambda s: failing(s, sfn_error("States.Timeout"), when="after", times=1),
    "timeout for ever": lambda s: failing(s, sfn_error("States.Timeout")),
    "killed before": lambda s: failing(s, Killed()),
    "killed after": lambda s: failing(s, Killed(), when="after"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("workflow", "state"), STATES)
def test_a_failure_in_any_state_ends_well_or_in_an_alert_and_leaves_nothing(workflow, state, kind):
    world = new_world()
    before = world.production()
    inject = KINDS[kind](state)
    if state in ENDINGS:
        broken = next(s for w, s in STATES if w == workflow and s in FIRST_TO_BREAK)

        def both(name, attempt, moment):
            failing(broken, sfn_error("SomethingBroke"))(name, attempt, moment)
            inject(name, attempt, moment)

        record = run(workflow, world, on_state=both)
        check(workflow, world, before, record, alerted=state != "Alert")
        return
    record = run(workflow, world, on_state=inject)
    if kind.startswith("killed"):
        assert record["status"] == "ABORTED"
    elif "once" in kind and not (
        workflow == "PointInTimeRecovery" and state == "Check the request" and "timeout" in kind
    ):
        assert record["status"] in {"SUCCEEDED", "FAILED"}
    check(workflow, world, before, record)
    if kind == "throttled once":
        assert record["status"] == "SUCCEEDED", record.get("cause")
    if kind == "error" and state not in {"Remember the source", "Take a baseline"}:
        assert record["status"] == "FAILED"
        (alert,) = [p for p in world.published if p["Subject"].endswith("failed")]
        assert alert["Message"]["step"] == state


@pytest.mark.parametrize(
    ("workflow", "stuck"),
    [
        ("OnDemandSnapshot", "on-demand-prod-run-1"),
        ("PointInTimeRecovery", "rescued"),
        ("PointInTimeRecovery", "rescued-1"),
        ("PointInTimeRecovery", "rescued-2"),
        ("RecoveryTest", "recovery-test-prod-run-1"),
        ("RecoveryTest", "recovery-test-prod-run-1-1"),
        ("NativeRestoreTest", "awsbackup-restore-test-1-run-1"),
    ],
)
def test_what_is_stuck_at_creating_ends_at_the_deadline_in_an_alert(workflow, stuck):
    world = new_world()
    before = world.production()
    world.stuck = {stuck}
    record = run(workflow, world, pace=20)
    assert record["status"] == "FAILED"
    (alert,) = [p for p in world.published if p["Subject"].endswith("failed")]
    assert stuck in alert["Message"]["cause"]
    assert "creating" in alert["Message"]["cause"]
    check(workflow, world, before, record)
    if workflow == "PointInTimeRecovery":
        tags = {t["Key"]: t["Value"] for t in world.clusters["rescued"].described["TagList"]}
        assert tags["aurora-backup:purpose"] == "point-in-time-recovery", "it stays for the operator, tagged"


def api_calls(workflow):
    """The numbers of a run's AWS calls: the first and the last of each operation in each state."""
    world = new_world()
    run(workflow, world)
    found = {}
    for call in world.calls:
        found.setdefault((call.state, call.operation), []).append(call.number)
    return sorted({number for numbers in found.values() for number in (numbers[0], numbers[-1])})


BREAKS = {
    "refused": ("before", refused("AccessDenied", "no", "Operation", 403), False),
    "throttled for ever": ("before", refused("Throttling", "slow down", "Operation"), True),
    "answer lost": ("after", refused("InternalFailure", "lost", "Operation", 500), False),
}


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("workflow", REQUESTS)
def test_a_failure_of_any_aws_call_ends_well_or_in_an_alert_and_leaves_nothing(workflow, how):
    """Each call of the workflow in turn, by its place in the run."""
    when, error, for_ever = BREAKS[how]
    numbers = api_calls(workflow)
    assert len(numbers) > 4
    for number in numbers:
        world = new_world()
        before = world.production()

        def fault(call, moment, number=number):
            if moment == when and (call.number == number or (for_ever and call.number > number)):
                raise error

        world.fault = fault
        record = run(workflow, world)
        assert record["status"] in {"SUCCEEDED", "FAILED"}, (workflow, number)
        check(workflow, world, before, record, alerted=not for_ever)
        if how == "answer lost":
            assert record["status"] == "SUCCEEDED", (number, world.calls[number], record.get("cause"))


def unread(world):
    """From now on, no reading of the source opens the database app."""
    read = world.facts
    failed = {"app": "ConnectionFailed: no"}
    world.facts = lambda *, restored: (
        read(restored=True) if restored else replace(read(restored=False), databases={}, roles=(), failed=failed)
    )


def test_a_baseline_without_a_database_is_kept_and_alerts():
    world = new_world()
    kept = {key for key in world.objects if "/baselines/" in key}
    unread(world)
    record = run("Baselines", world)
    assert record["status"] == "FAILED"
    (alert,) = world.published
    (key,) = {key for key in world.objects if "/baselines/" in key} - kept
    assert alert["Message"]["step"] == "Take a baseline"
    assert f"the baseline {key} was stored without app: ConnectionFailed: no" in alert["Message"]["cause"]


def test_a_snapshot_on_demand_is_made_all_the_same_and_says_what_its_baseline_lacks():
    world = new_world()
    unread(world)
    assert run("OnDemandSnapshot", world)["status"] == "SUCCEEDED"
    (told,) = world.published
    assert "without app: ConnectionFailed: no" in json.dumps(told)


@pytest.mark.parametrize("workflow", ["RecoveryTest", "NativeRestoreTest"])
def test_a_test_whose_baseline_lacks_a_database_goes_on_and_does_not_prove_it(workflow):
    world = new_world()
    unread(world)
    visited = []
    record = run(workflow, world, on_state=lambda name, _attempt, _when: visited.append(name))
    assert "Judge" in visited
    assert record["error"] == "RecoveryTest NOT PROVED"
    (report,) = [json.loads(body) for key, body in world.objects.items() if "/recovery-tests/" in key]
    assert "app is not compared whole" in report["checks"][0]["reason"]


def test_a_copy_that_is_damaged_fails_the_test_says_so_and_is_removed():
    world = new_world()
    world.damaged = True
    record = run("RecoveryTest", world)
    assert record["status"] == "FAILED"
    assert record["error"] == "RecoveryTest DAMAGED"
    assert world.test_copies() == []
    (key,) = [key for key in world.objects if "/recovery-tests/" in key]
    report = json.loads(world.objects[key])
    assert report["outcome"] == "DAMAGED"
    assert report["checks"][0]["reason"] == "app.public.patients has 900 rows, expected 1000"


def test_a_test_whose_own_rules_got_no_answer_is_not_proved():
    asked = {"name": "orphans", "sql": "SELECT 0", "expected": "0", "reason": "r"}
    rules = {"recency": {"app": "SELECT max(at) FROM visits"}, "checks": {"elsewhere": [asked]}}
    world, driven = new_world(), machine("RecoveryTest")
    for _, environment in driven.functions.values():
        environment["VALIDATION"] = json.dumps(rules)
    assert driven.run(world, REQUESTS["RecoveryTest"])["error"] == "RecoveryTest NOT PROVED"
    (report,) = [json.loads(body) for key, body in world.objects.items() if "/recovery-tests/" in key]
    told = {each["name"]: each["reason"] for each in report["checks"]}
    assert told["recent transactions"] == "app: the recency query could not be read: it answered NULL"
    assert "orphans was asked for and has no answer" in told["data integrity"]


def sweep(world, capsys):
    """One run of the janitor; return what it says, and the metric."""
    capsys.readouterr()
    said = invoke_handler(world, "sweep_leftovers", environment_of("sweep_leftovers"), {"now": world.clock.iso()})
    return said, json.loads(capsys.readouterr().out.splitlines()[-1])["RestoredCopiesLeftOver"]


def leftovers():
    """A world half a day after a recovery test that was killed before it cleaned up; its cluster and its instance."""
    world = new_world()
    run("RecoveryTest", world, on_state=failing("Clean up", Killed()))
    world.clock.advance(13 * 3600)
    return world, *world.test_copies()


def test_a_copy_that_lost_its_tag_is_not_removed_and_counts_as_left_over(capsys):
    world, cluster, instance = leftovers()
    for thing in (world.clusters[cluster], world.instances[instance]):
        thing.described["TagList"] = [t for t in thing.described["TagList"] if t["Key"] != "aurora-backup:purpose"]
    said, count = sweep(world, capsys)
    assert (said["left"], said["removed"], count) == ([], [], 1)
    assert said["problems"][0].startswith(f"{cluster}: RemovalRefused: not deleted: cluster {cluster}: its tag")
    assert cluster in world.clusters


def test_a_copy_that_is_left_and_refused_counts_once(capsys):
    world, cluster, instance = leftovers()
    world.clusters[cluster].described["DeletionProtection"] = True
    said, count = sweep(world, capsys)
    assert (said["left"], len(said["problems"]), count) == ([cluster, instance], 1, 2)


def test_an_instance_of_no_cluster_under_a_name_of_ours_stays_and_does_not_end_the_sweep(capsys):
    world, cluster, instance = leftovers()
    del world.instances[instance]
    world._add_instance(instance, "", {"TagList": []}, ready=True)
    del world.instances[instance].described["DBClusterIdentifier"]
    said, count = sweep(world, capsys)
    assert said["problems"] == [
        f"{instance}: RemovalRefused: not deleted: instance {instance}: it belongs to no cluster"
    ]
    assert (said["left"], count) == ([cluster], 2)
    assert world.clusters[cluster].status == "deleting"
    assert not world.named("delete_db_instance")


def test_a_native_restore_test_is_answered_and_its_cluster_is_left_to_aws_backup():
    world = new_world()
    run("NativeRestoreTest", world)
    (answer,) = world.validations
    assert (answer["RestoreJobId"], answer["ValidationStatus"]) == ("job-1", "SUCCESSFUL")
    assert "awsbackup-restore-test-1" in world.clusters
    assert not [i for i in world.instances.values() if i.described["DBClusterIdentifier"] == "awsbackup-restore-test-1"]


def test_a_native_restore_test_that_cannot_be_read_is_answered_as_failed():
    world = new_world()
    run("NativeRestoreTest", world, on_state=failing("Read the copy", sfn_error("QueryFailed")))
    (answer,) = world.validations
    assert answer["ValidationStatus"] == "FAILED"
    assert "Read the copy" in answer["ValidationStatusMessage"]


def test_a_deleted_cluster_is_recovered_by_its_resource_id_with_the_settings_that_were_remembered():
    world = new_world()
    source = world.clusters.pop(PROD)
    world.instances.clear()
    window = {"EarliestTime": world.clock.now - timedelta(days=2), "LatestTime": world.clock.now}
    world.retained[PROD_ID] = {"DbClusterResourceId": PROD_ID, "RestoreWindow": window}
    record = machine("PointInTimeRecovery").run(
        world, {"target_cluster_id": "rescued", "latest": True, "source_resource_id": PROD_ID}
    )
    assert record["status"] == "SUCCEEDED", record.get("cause")
    rescued = world.clusters["rescued"].described
    for setting in ("DBSubnetGroup", "DBClusterParameterGroup", "BackupRetentionPeriod", "DeletionProtection"):
        assert rescued[setting] == source.described[setting]
    assert sorted(world.instances) == ["rescued-1", "rescued-2"]


def test_a_recovery_carries_over_what_a_restore_does_not_and_hands_over():
    world = new_world()
    record = run("PointInTimeRecovery", world)
    output = json.loads(record["output"])["handed"]
    assert (output["outcome"], output["target"]) == ("RESTORED", "rescued")
    document = json.loads(world.objects[output["report"]])
    assert document["endpoint"] == "rescued.example"
    assert document["secret_arn"] == "arn:secret:rescued"
    assert document["rto_seconds"] == 240  # eight rounds of waiting
    assert document["rpo_seconds"] == 120
    assert document["differences"] == {}, "everything that can be carried over was"
    assert any("aurora-backup adopt" in line for line in document["to_do"])
    assert [i for i in world.instances if i.startswith("rescued")] == ["rescued-1", "rescued-2"]
    assert {"Key": "team", "Value": "clinic"} in world.clusters["rescued"].described["TagList"]
