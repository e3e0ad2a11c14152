"""The recovery constructs' templates: every task has a timeout and retries, and only test copies can be deleted."""

from __future__ import annotations

import json

import pytest

from cdk_aurora_backup.checks import SynthError
from tests.recovery_stack import WORKFLOWS, machine, recovery_stack, synthesised

PASSING = {"RdsUnavailable", "S3Failed", "ConnectionFailed", "ClientError", "Lambda.Unknown", "States.Timeout"}


@pytest.fixture(scope="module")
def stack():
    return synthesised()


def tasks(workflow):
    return {n: s for n, s in machine(workflow).definition["States"].items() if s["Type"] == "Task"}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_task_has_a_timeout_retries_and_somewhere_to_go_when_it_fails(workflow):
    for name, state in tasks(workflow).items():
        assert 0 < state["TimeoutSeconds"] <= 900, name
        assert state["Retry"], name
        assert state["Catch"][-1]["ErrorEquals"] == ["States.ALL"], name
        if "sns:publish" not in state["Resource"]:
            assert any(set(retry["ErrorEquals"]) >= PASSING for retry in state["Retry"]), name
        assert all(retry["MaxAttempts"] >= 3 for retry in state["Retry"]), name


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_definition_is_connected_and_ends(workflow):
    definition = machine(workflow).definition
    states = definition["States"]
    reached, todo = set(), [definition["StartAt"]]
    while todo:
        name = todo.pop()
        if name in reached:
            continue
        reached.add(name)
        state = states[name]
        nexts = [state.get("Next"), state.get("Default")]
        nexts += [choice["Next"] for choice in state.get("Choices", [])]
        nexts += [catch["Next"] for catch in state.get("Catch", [])]
        todo += [n for n in nexts if n]
        assert state["Type"] in {"Succeed", "Fail"} or any(nexts), f"{name} leads nowhere"
    assert reached == set(states), "a state that is never reached"
    assert definition["TimeoutSeconds"] > 0


def test_every_state_machine_logs_everything_without_data_and_is_traced(stack):
    for properties in stack.all("AWS::StepFunctions::StateMachine"):
        logging = properties["LoggingConfiguration"]
        assert (logging["Level"], logging["IncludeExecutionData"]) == ("ALL", False)
        assert properties["TracingConfiguration"] == {"Enabled": True}


def test_only_the_clean_ups_and_the_janitor_can_delete_and_only_test_copies_with_our_tags(stack):
    found = {}
    for policy, statement in stack.policies():
        if '"rds:Delete' in json.dumps(statement["Action"]):
            resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            role = policy.partition("Role")[0].removeprefix("Recovery").removesuffix("Function")
            found[role, statement["Sid"]] = sorted(resource.rpartition(":")[2] for resource in resources)
            tags = {"aws:ResourceTag/aurora-backup:owner": "Recovery"}
            tags["aws:ResourceTag/aurora-backup:purpose"] = "recovery-test"
            assert statement["Condition"] == {"StringEquals": tags}
    copies, added = ["recovery-test-*", "recovery-test-*"], ["awsbackup-restore-test*"]
    assert found == {
        ("Janitor", "DeleteTestCopies"): copies,
        ("Janitor", "DeleteAddedInstances"): added,
        ("RecoveryTestCleanUp", "DeleteTestCopies"): copies,
        ("NativeRestoreTestCleanUp", "DeleteAddedInstances"): added,
    }


def test_restoring_needs_our_tag_in_the_request_and_changing_needs_it_on_the_cluster(stack):
    conditions = [
        (s["Sid"], json.dumps(s.get("Condition")))
        for _, s in stack.policies()
        if s.get("Sid") in {"Restore", "AddInstance", "Settle"} and "rds:" in json.dumps(s["Action"])
    ]
    ours = [(sid, text) for sid, text in conditions if "aurora-backup:purpose" in text]
    assert sorted(sid for sid, _ in ours) == ["AddInstance", "Restore", "Restore", "Settle", "Settle"]
    assert all(("aws:ResourceTag" if sid == "Settle" else "aws:RequestTag") in text for sid, text in ours)
    assert all("aurora-backup:owner" in text for _, text in ours)


def test_what_restores_can_neither_tag_nor_change_the_source(stack):
    """With a tag of ours on it, production itself could be changed by what settles a recovered cluster."""
    restoring = [r for r in roles_of(stack) if any(s.get("Sid") == "Settle" for s in r)]
    pairs = [[s for s in r if s["Sid"] in {"Restore", "SpareSource"}] for r in restoring]
    assert len(pairs) == 2  # recoveries and recovery tests
    for allowed, denied in (sorted(found, key=lambda s: s["Sid"]) for found in pairs):
        assert (allowed["Effect"], denied["Effect"]) == ("Allow", "Deny")
        assert set(denied["Action"]) == {"rds:AddTagsToResource", "rds:ModifyDBCluster"}
        assert denied["Resource"] in allowed["Resource"]
        assert "Condition" not in denied


def roles_of(stack):
    """The statements of each managed policy."""
    policies = (r for r in stack.resources.values() if r["Type"] == "AWS::IAM::ManagedPolicy")
    return [p["Properties"]["PolicyDocument"]["Statement"] for p in policies]


def test_no_function_that_opens_postgresql_can_call_rds(stack):
    for name in stack.ids("AWS::Lambda::Function"):
        properties = stack.resources[name]["Properties"]
        if "VpcConfig" not in properties:
            continue
        role = name.rstrip("0123456789ABCDEF")
        policies = [s for p, s in stack.policies() if p.startswith(f"{role}Role")]
        assert policies, name
        assert not [s for s in policies if '"rds:' in json.dumps(s["Action"])], name


def test_test_copies_let_in_only_the_reader_and_nothing_leaves_them(stack):
    (copies,) = [n for n in stack.ids("AWS::EC2::SecurityGroup") if "IsolationCopies" in n]
    egress = stack.resources[copies]["Properties"]["SecurityGroupEgress"]
    assert [rule["CidrIp"] for rule in egress] == ["255.255.255.255/32"], "CDK's way to say: nothing"
    into = [r for r in stack.all("AWS::EC2::SecurityGroupIngress") if r["GroupId"] == f"<{copies}.GroupId>"]
    assert len(into) == 1
    assert "IsolationNetwork" in into[0]["SourceSecurityGroupId"]


def test_the_reader_of_test_copies_has_no_way_to_production(stack):
    (reader,) = [n for n in stack.ids("AWS::EC2::SecurityGroup") if "IsolationNetworkGroup" in n]
    out = [r for r in stack.all("AWS::EC2::SecurityGroupEgress") if r["GroupId"] == f"<{reader}.GroupId>"]
    assert out
    assert not [r for r in out if r.get("DestinationSecurityGroupId") == "sg-0123456789abcdef0"]


def test_the_heartbeat_is_written_every_five_minutes_and_missed_aloud(stack):
    schedule = stack.named("AWS::Scheduler::Schedule", "HeartbeatSchedule")
    assert schedule["ScheduleExpression"] == "rate(5 minutes)"
    assert json.loads(schedule["Target"]["Input"])["database_endpoint"]["host"] == "clinic.example"
    alarm = stack.named("AWS::CloudWatch::Alarm", "HeartbeatMissing")
    assert (alarm["MetricName"], alarm["TreatMissingData"], alarm["Period"]) == ("HeartbeatsWritten", "breaching", 300)
    assert alarm["AlarmActions"]


def test_the_janitor_sweeps_and_its_silence_alarms_too(stack):
    assert stack.named("AWS::Scheduler::Schedule", "JanitorSchedule")["ScheduleExpression"] == "rate(30 minutes)"
    alarm = stack.named("AWS::CloudWatch::Alarm", "JanitorLeftOver")
    assert (alarm["MetricName"], alarm["TreatMissingData"]) == ("RestoredCopiesLeftOver", "breaching")


def test_the_recovery_test_runs_on_the_policys_schedule(stack):
    schedule = stack.named("AWS::Scheduler::Schedule", "RecoveryTestWorkflowSchedule")
    assert schedule["ScheduleExpression"] == "cron(0 7 2 * ? *)"


def test_validation_rules_and_lineage_reach_the_functions():
    rules = {"tolerances": {"public.jobs": 0.5}}
    made = recovery_stack(validation=rules, lineage=["cluster-OLD"], restore_testing=None)
    judge = made.named("AWS::Lambda::Function", "RecoveryTestJudge")["Environment"]["Variables"]
    assert json.loads(judge["VALIDATION"]) == rules
    assert json.loads(judge["LINEAGE"]) == ["cluster-OLD"]
    janitor = made.named("AWS::Lambda::Function", "JanitorFunction")["Environment"]["Variables"]
    assert json.loads(janitor["LINEAGE"]) == ["cluster-OLD"]


def test_an_imported_cluster_has_a_heartbeat_only_when_asked_for():
    made = recovery_stack(heartbeat=None, restore_testing=None)
    assert not [n for n in made.ids("AWS::Scheduler::Schedule") if "Heartbeat" in n]


def test_a_heartbeat_without_an_endpoint_is_refused(monkeypatch):
    from tests import recovery_stack as module

    original = module.imported_cluster
    monkeypatch.setattr(module, "imported_cluster", lambda stack, **o: original(stack, **{**o, "endpoint": None}))
    with pytest.raises(SynthError, match=r"Heartbeat needs ClusterDetails\.endpoint"):
        recovery_stack()


def test_a_validation_that_could_not_be_read_is_refused_at_synth():
    with pytest.raises(SynthError, match=r"^Recovery\.validation\.tolerence is not a setting; there are checks, "):
        recovery_stack(validation={"tolerence": {}})
    with pytest.raises(SynthError, match=r"^Recovery\.validation\.tolerances\.\* must be at most 1, .*, got 5$"):
        recovery_stack(validation={"tolerances": {"*": 5}})
