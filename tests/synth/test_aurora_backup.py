"""The template that app.py deploys: the strategy document's settings by section, and what holds for all of it."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from ministack.services import stepfunctions

from aurora_backup.errors import LogicalBackupFailed
from aurora_backup.handlers import conclude_logical_backup
from tests.recovery_world import Clock, Machine
from tests.synth.synthesis import CDKS_OWN, STATEFUL, pinned, states

LOGICAL_IDS = Path(__file__).with_name("logical_ids.json")

# Section 1.1: AWS RDS backup settings.


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("BackupRetentionPeriod", 35),
        ("PreferredBackupWindow", "03:00-04:00"),
        ("PreferredMaintenanceWindow", "mon:04:00-mon:05:00"),
        ("CopyTagsToSnapshot", True),
        ("DeletionProtection", True),
        ("StorageEncrypted", True),
        ("DeleteAutomatedBackups", False),
        ("ManageMasterUserPassword", True),
        ("EnableIAMDatabaseAuthentication", True),
        ("PerformanceInsightsEnabled", True),
    ],
)
def test_section_1_1_the_cluster_has_the_documents_setting(default, setting, value):
    assert default.one("AWS::RDS::DBCluster")[setting] == value


def test_section_1_1_storage_is_encrypted_under_the_customer_key(default):
    (key,) = default.ids("AWS::KMS::Key")
    cluster = default.one("AWS::RDS::DBCluster")
    assert cluster["KmsKeyId"] == cluster["PerformanceInsightsKmsKeyId"] == f"<{key}.Arn>"
    assert cluster["MasterUserSecret"]["KmsKeyId"] == f"<{key}.Arn>"


def test_every_connection_to_a_new_cluster_is_by_tls_and_logged(default):
    parameters = default.one("AWS::RDS::DBClusterParameterGroup")["Parameters"]
    assert parameters == {"rds.force_ssl": "1", "log_connections": "1", "log_disconnections": "1"}
    (group,) = default.ids("AWS::RDS::DBClusterParameterGroup")
    assert default.one("AWS::RDS::DBCluster")["DBClusterParameterGroupName"] == f"<{group}>"


def test_every_instance_of_a_new_cluster_is_monitored_and_in_isolated_subnets(default):
    (role,) = [name for name in default.ids("AWS::IAM::Role") if "Monitoring" in name]
    assert len(default.all("AWS::RDS::DBInstance")) == 2
    for instance in default.all("AWS::RDS::DBInstance"):
        assert (instance["MonitoringInterval"], instance["MonitoringRoleArn"]) == (60, f"<{role}.Arn>")
        assert instance["EnablePerformanceInsights"] is True
    subnets = default.named("AWS::RDS::DBSubnetGroup", "Database")["SubnetIds"]
    assert len(subnets) == 2
    kinds = {
        name: {t["Key"]: t["Value"] for t in default.resources[name.strip("<>")]["Properties"]["Tags"]}
        for name in subnets
    }
    assert {tags["aws-cdk:subnet-type"] for tags in kinds.values()} == {"Isolated"}


def test_section_1_1_the_logs_that_aurora_postgresql_has_are_exported(default):
    # "upgrade" is not among them: Aurora PostgreSQL refuses it.
    exports = default.one("AWS::RDS::DBCluster")["EnableCloudwatchLogsExports"]
    assert exports == ["postgresql", "instance", "iam-db-auth-error"]


def test_section_1_1_backup_target_is_left_out_because_clusters_have_no_such_property(default):
    assert "BackupTarget" not in default.one("AWS::RDS::DBCluster")


# Section 1.2: backup types and schedule.


def test_section_1_2_snapshots_are_taken_weekly_and_monthly_and_kept_as_long_as_the_document_says(default):
    rules = default.one("AWS::Backup::BackupPlan")["BackupPlan"]["BackupPlanRule"]
    found = {r["RuleName"]: (r["ScheduleExpression"], r["Lifecycle"]) for r in rules}
    assert found == {
        "weekly": ("cron(0 2 ? * SUN *)", {"DeleteAfterDays": 180}),
        "monthly": ("cron(0 1 1 * ? *)", {"DeleteAfterDays": 2192}),
    }


def test_section_1_2_snapshots_leave_continuous_backup_to_aurora(default):
    for rule in default.one("AWS::Backup::BackupPlan")["BackupPlan"]["BackupPlanRule"]:
        assert "EnableContinuousBackup" not in rule


def test_section_1_2_the_plan_selects_the_cluster_and_nothing_else(default):
    (cluster,) = default.ids("AWS::RDS::DBCluster")
    selection = default.one("AWS::Backup::BackupSelection")["BackupSelection"]
    assert selection["Resources"] == [f"arn:<AWS::Partition>:rds:<AWS::Region>:<AWS::AccountId>:cluster:<{cluster}>"]
    assert "ListOfTags" not in selection


def test_section_1_2_dumps_are_made_on_saturdays_at_two_under_their_prefix(default):
    schedule = default.named("AWS::Scheduler::Schedule", "Weekly")
    assert schedule["ScheduleExpression"] == "cron(0 2 ? * SAT *)"
    assert schedule["ScheduleExpressionTimezone"] == "Etc/UTC"
    assert schedule["State"] == "ENABLED"
    data = json.loads(schedule["Target"]["Input"])
    assert data == {"prefix": "logical-backups", "started": "<aws.scheduler.scheduled-time>"}


def test_a_schedule_that_starts_nothing_ends_in_the_queue_that_has_an_alarm(default):
    queue = default.ids("AWS::SQS::Queue")[0]
    for schedule in default.all("AWS::Scheduler::Schedule"):
        assert schedule["Target"]["DeadLetterConfig"] == {"Arn": f"<{queue}.Arn>"}
    alarms = [a for a in default.all("AWS::CloudWatch::Alarm") if a.get("Namespace") == "AWS/SQS"]
    assert [a["Dimensions"][0]["Value"] for a in alarms] == [f"<{queue}.QueueName>"]
    (topic,) = default.ids("AWS::SNS::Topic")
    assert alarms[0]["AlarmActions"] == [f"<{topic}>"]


# Section 3.1: data lifecycle rules.


def test_section_3_1_the_four_prefixes_have_the_lifecycle_that_s3_accepts(default):
    bucket = default.named("AWS::S3::Bucket", "StorageBucket")
    rules = {r["Prefix"]: r for r in bucket["LifecycleConfiguration"]["Rules"] if "Prefix" in r}
    glacier = [{"StorageClass": "GLACIER", "TransitionInDays": 90}]
    assert {p: (r["ExpirationInDays"], r.get("Transitions")) for p, r in rules.items()} == {
        "automated-backups/": (35, None),
        "manual-backups/": (180, glacier),
        "logical-backups/": (90, None),
        "compliance-backups/": (2192, glacier),
    }
    assert {r["Status"] for r in bucket["LifecycleConfiguration"]["Rules"]} == {"Enabled"}


def test_section_3_1_expiry_also_removes_old_versions_markers_and_aborted_uploads(default):
    for bucket in default.all("AWS::S3::Bucket"):
        rules = bucket["LifecycleConfiguration"]["Rules"]
        assert all(r["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30 for r in rules if "ExpirationInDays" in r)
        (last,) = [r for r in rules if "ExpirationInDays" not in r]
        assert last["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}
        assert last["ExpiredObjectDeleteMarker"] is True


# What holds for everything that is deployed.


def test_what_holds_data_outlives_the_stack(default):
    for kind in (
        "AWS::KMS::Key",
        "AWS::RDS::DBCluster",
        "AWS::RDS::DBInstance",
        "AWS::S3::Bucket",
        "AWS::Backup::BackupVault",
    ):
        for name in default.ids(kind):
            body = default.resources[name]
            assert (body["DeletionPolicy"], body["UpdateReplacePolicy"]) == ("Retain", "Retain"), name


def test_logical_ids_of_what_holds_data_never_change_so_that_an_upgrade_replaces_none(default):
    found = {kind: sorted(default.ids(kind)) for kind in STATEFUL}
    assert found == pinned(LOGICAL_IDS, found)


def test_nothing_has_a_physical_name_but_what_aws_demands_one_for(default):
    # AWS Backup and security groups' descriptions aside, CloudFormation must stay free to name and to replace.
    names = re.compile(r"^(\w*Name|\w*Identifier)$")
    allowed = {
        ("AWS::Backup::BackupVault", "BackupVaultName"),
        ("AWS::RDS::DBCluster", "DatabaseName"),
        ("AWS::RDS::DBCluster", "DBSubnetGroupName"),
        ("AWS::RDS::DBCluster", "DBClusterParameterGroupName"),
        ("AWS::RDS::DBInstance", "DBClusterIdentifier"),
        ("AWS::EC2::VPCEndpoint", "ServiceName"),
        ("AWS::EC2::FlowLog", "LogGroupName"),
        ("AWS::CloudWatch::Alarm", "MetricName"),
    }
    for name, body in default.resources.items():
        for key, value in body.get("Properties", {}).items():
            if names.match(key) and (body["Type"], key) not in allowed:
                assert str(value).startswith("<"), f"{name}.{key} is {value!r}"


def test_every_function_is_traced_limited_encrypted_and_has_its_own_role_log_group_and_queue(default):
    (key,) = default.ids("AWS::KMS::Key")
    functions = default.all("AWS::Lambda::Function")
    assert len(functions) >= 5
    for function in functions:
        assert function["TracingConfig"] == {"Mode": "Active"}
        assert function["ReservedConcurrentExecutions"] == 2
        assert function["KmsKeyArn"] == f"<{key}.Arn>"
        assert function["DeadLetterConfig"]["TargetArn"].startswith("<BackupFunctionsDeadLetters")
        assert function["Architectures"] == ["arm64"]
    # The one that reads archives back runs as the one that restores them.
    ran = [(f["Role"], f["LoggingConfig"]["LogGroup"]) for f in functions if ".read_back." not in f["Handler"]]
    assert len({role for role, _ in ran}) == len({group for _, group in ran}) == len(functions) - 1


def test_every_log_group_is_encrypted_and_ends(default):
    (key,) = default.ids("AWS::KMS::Key")
    for group in default.all("AWS::Logs::LogGroup"):
        assert (group["KmsKeyId"], group["RetentionInDays"]) == (f"<{key}.Arn>", 365)


def test_every_function_is_told_the_policy_and_whose_it_is(default):
    tags = [r["RecoveryPointTags"] for r in default.one("AWS::Backup::BackupPlan")["BackupPlan"]["BackupPlanRule"]]
    for function in default.all("AWS::Lambda::Function"):
        told = function["Environment"]["Variables"]
        assert json.loads(told["RETENTION_POLICY"])["automated"]["keep_days"] == 35
        assert {tag["aurora-backup:owner"] for tag in tags} == {told["OWNER"]}
        assert told["BACKUP_BUCKET"].startswith("<BackupStorageBucket")


def test_only_functions_that_open_postgresql_enter_the_vpc(default):
    inside = {n for n in default.ids("AWS::Lambda::Function") if "VpcConfig" in default.resources[n]["Properties"]}
    assert {re.sub(r"[0-9A-F]{8}$", "", name) for name in inside} == {
        "BackupLogicalPreflight",
        "BackupLogicalDump",
        "BackupRoleFunction",
        "BackupRecoveryHeartbeatFunction",
        "BackupRecoveryBaselinesRead",
        "BackupRecoveryPointInTimeRecoveryRead",
        "BackupRecoveryRecoveryTestRead",
    }


def test_every_role_has_customer_managed_policies_only_and_trusts_one_service(default):
    for name in default.ids("AWS::IAM::Role"):
        role = default.resources[name]["Properties"]
        assert "Policies" not in role, name
        assert "ManagedPolicyArns" not in role, name
        (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert isinstance(trust["Principal"]["Service"], str)
    assert default.ids("AWS::IAM::Policy") == []
    attached = [role for policy in default.all("AWS::IAM::ManagedPolicy") for role in policy["Roles"]]
    assert sorted(attached) == sorted(f"<{name}>" for name in default.ids("AWS::IAM::Role"))


def test_every_statement_says_what_it_is_for_and_grants_no_action_wildcard(default):
    statements = list(default.policies())
    assert len(statements) > 30
    for name, stmt in statements:
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]+", stmt.get("Sid", "")), (name, stmt)
        actions = stmt["Action"] if isinstance(stmt["Action"], list) else [stmt["Action"]]
        assert not [a for a in actions if a.endswith(":*") or a == "*"], (name, stmt)


def test_nothing_may_delete_a_backup(default):
    deleting = re.compile(r"s3:Delete|backup:Delete|kms:(Schedule|Disable|PutKeyPolicy)|s3:PutLifecycle|s3:Bypass")
    for name, stmt in default.policies():
        actions = stmt["Action"] if isinstance(stmt["Action"], list) else [stmt["Action"]]
        resources = stmt["Resource"] if isinstance(stmt["Resource"], list) else [stmt["Resource"]]
        if all("/ledger/" in resource for resource in resources):
            continue  # creation records are closed when what they speak of is gone
        if stmt["Sid"] == "HideSets" and name.startswith("BackupRetentionAct"):
            # The retention manager, when the policy enforces: current versions only, which can be brought back.
            assert actions == ["s3:DeleteObject"]
            continue
        assert not [a for a in actions if deleting.match(a)], (name, stmt)


def test_only_copies_that_a_test_restored_may_be_deleted_and_only_with_our_tag(default):
    test_copy = re.compile(r".*:(cluster|db):(recovery-test-|awsbackup-restore-test)")
    found = 0
    for name, stmt in default.policies():
        actions = stmt["Action"] if isinstance(stmt["Action"], list) else [stmt["Action"]]
        if not [a for a in actions if a.startswith("rds:DeleteDB") and "Snapshot" not in a]:
            continue
        found += 1
        resources = stmt["Resource"] if isinstance(stmt["Resource"], list) else [stmt["Resource"]]
        assert all(test_copy.match(resource) for resource in resources), (name, resources)
        tagged = stmt["Condition"]["StringEquals"]
        assert tagged["aws:ResourceTag/aurora-backup:purpose"] == "recovery-test", (name, stmt)
    assert found


def test_the_only_way_into_the_database_is_its_port_from_the_backup_functions(default):
    ingress = [*default.all("AWS::EC2::SecurityGroupIngress")]
    for group in default.all("AWS::EC2::SecurityGroup"):
        ingress += [{**rule, "GroupId": "inline"} for rule in group.get("SecurityGroupIngress", [])]
    to_database = [r for r in ingress if "DatabaseCluster" in r["GroupId"]]
    assert {(r["IpProtocol"], str(r["FromPort"]), str(r["ToPort"])) for r in to_database} == {("tcp", "5432", "5432")}
    assert all("SourceSecurityGroupId" in r for r in ingress), "no address range is let in"


def test_the_database_has_no_route_out(default):
    assert default.ids("AWS::EC2::InternetGateway") == []
    assert default.ids("AWS::EC2::NatGateway") == []
    assert {i["PubliclyAccessible"] for i in default.all("AWS::RDS::DBInstance")} == {False}


def test_exactly_the_endpoints_are_made_that_the_functions_in_the_vpc_call(default):
    services = sorted(e["ServiceName"].rpartition(".")[2] for e in default.all("AWS::EC2::VPCEndpoint"))
    assert services == ["logs", "s3", "secretsmanager"]  # logs: a long-running dump's build writes them from there
    gateway = next(e for e in default.all("AWS::EC2::VPCEndpoint") if e["ServiceName"].endswith(".s3"))
    assert len(gateway["RouteTableIds"]) == 2


def test_every_service_that_a_resource_policy_lets_in_is_bound_to_this_account(default):
    documents = {"KeyPolicy", "PolicyDocument", "AccessPolicy"}
    let_in = [
        (name, stmt["Sid"], stmt.get("Condition"))
        for name, body in default.resources.items()
        if not body["Type"].startswith("AWS::IAM::")
        for document in documents & body.get("Properties", {}).keys()
        for stmt in body["Properties"][document]["Statement"]
        if stmt["Effect"] == "Allow" and stmt["Principal"].keys() == {"Service"}
    ]
    assert len(let_in) >= 7
    # EventBridge delivers nothing to a topic whose policy puts a condition on it; it can only publish there.
    assert [sid for _, sid, condition in let_in if not condition] == ["PublishEvents"]
    assert all("<AWS::AccountId>" in json.dumps(c) for _, _, c in let_in if c)


# The workflows' definitions.


def test_every_task_has_a_timeout_retries_what_is_transient_and_catches_the_rest(default):
    machines = default.state_machines()
    assert machines
    for machine, definition in machines.items():
        for name, state in states(definition):
            if state["Type"] != "Task":
                continue
            assert state.get("TimeoutSeconds"), (machine, name)
            assert state.get("Retry"), (machine, name)
            assert state.get("Catch"), (machine, name)


def test_every_workflow_is_logged_in_full_but_without_data_and_traced_and_ends(default):
    for name, definition in default.state_machines().items():
        machine = default.resources[name]["Properties"]
        assert machine["LoggingConfiguration"]["Level"] == "ALL"
        assert machine["LoggingConfiguration"].get("IncludeExecutionData", False) is False
        assert machine["TracingConfiguration"] == {"Enabled": True}
        assert 0 < definition["TimeoutSeconds"] <= 7 * 24 * 3600


def test_every_failure_path_publishes_the_step_and_the_cause_and_fails_the_execution(default):
    for machine, definition in default.state_machines().items():
        named = [s for n, s in states(definition) if n.endswith(" failed") and s["Type"] == "Pass"]
        assert named, machine
        for state in named:
            if "workflow" in state["Parameters"]:
                told = {key.removesuffix(".$") for key in state["Parameters"]}
                assert told == {"workflow", "step", "error", "cause", "execution"}
                assert state["Next"] == "Alert"
        alert = definition["States"]["Alert"]
        assert alert["Resource"].endswith(":states:::sns:publish")
        assert definition["States"][alert["Next"]]["Type"] == "Fail"


def test_a_failure_of_one_database_does_not_hide_the_others(default):
    (definition,) = [d for n, d in default.state_machines().items() if "Logical" in n]
    each = definition["States"]["Every database"]
    inner = dict(states(each["ItemProcessor"]))
    assert {c["Next"] for s in inner.values() for c in s.get("Catch", [])} == {"This database failed"}
    assert inner["This database failed"].get("End") is True


def test_every_workflow_that_ends_badly_is_heard_of_even_if_it_cannot_say_so_itself(default):
    watched = [
        arn
        for rule in default.all("AWS::Events::Rule")
        if rule["EventPattern"]["detail-type"] == ["Step Functions Execution Status Change"]
        for arn in rule["EventPattern"]["detail"].get("stateMachineArn", [])
    ]
    assert sorted(watched) == sorted(f"<{name}>" for name in default.state_machines())


def test_cdks_own_helpers_are_the_only_thing_that_is_not_ours(default):
    theirs = [n for n in default.resources if n.startswith(CDKS_OWN)]
    assert {default.resources[n]["Type"] for n in theirs} == {"AWS::IAM::Role", "AWS::Lambda::Function"}


class LogicalBackup(Machine):
    """The synthesised workflow with its functions played: what each database's dump answers, in turn."""

    def __init__(self, stack, dumps, engine="lambda"):
        (name,) = [n for n in stack.state_machines() if "Logical" in n]
        functions = {
            f"<{f}.Arn>": (stack.resources[f]["Properties"]["Handler"].split(".")[-2], {})
            for f in stack.ids("AWS::Lambda::Function")
        }
        super().__init__(name, stack.state_machines()[name], functions)
        self.dumps, self.engine, self.done, self.told = {n: list(a) for n, a in dumps.items()}, engine, [], []

    def go(self):
        world = SimpleNamespace(clock=Clock(), state="", inhabited=nullcontext)
        return self.run(world, {"prefix": "manual-backups"})

    def _task(self, _world, resource, task_input):  # noqa: PLR0911  one for each task
        if resource.endswith(":sns:publish"):
            self.told.append((task_input["Subject"], json.dumps(task_input["Message"])))
            return {}
        if "codebuild" in resource:
            (variable,) = task_input["EnvironmentVariablesOverride"]
            database = json.loads(variable["Value"])["database"]
            self.done.append(f"codebuild {database['name']}")
            return {}
        handler = self.functions[resource][0]
        if handler == "find_instance":
            return {**task_input, "cluster": {"id": "main"}, "instance": {"id": "i"}}
        if handler == "preflight":
            databases = [{"name": n, "set": f"s/{n}/", "engine": self.engine} for n in self.dumps]
            return {**task_input, "databases": databases, "refused": []}
        if handler == "conclude_logical_backup":
            try:
                return conclude_logical_backup.handler(task_input, None)
            except LogicalBackupFailed as error:
                raise stepfunctions._ExecutionError("LogicalBackupFailed", str(error)) from error
        if handler == "verify":
            self.done.append(f"verify {task_input['set']}")
            return {"set": task_input["set"], "ok": True, "tiers": []}
        assert handler == "dump"
        name = task_input["database"]["name"]
        answer = self.dumps[name].pop(0)
        if answer == "fails":
            raise stepfunctions._ExecutionError("DumpFailed", json.dumps({"errorMessage": "no such table"}))
        key = f"s/{name}/manifest.json" if answer in {"done", "made before"} else None
        state = {"made before": "already-done", "elsewhere": "already-done"}.get(answer, answer)
        self.done.append(f"dump {name}: {answer}")
        return {"database": name, "set": f"s/{name}/", "manifest_key": key, "bytes": 1, "rows": 2, "state": state}


DONE = "Logical backup done"


@pytest.mark.parametrize(
    ("engine", "dumps", "status", "done", "subject"),
    [
        ("lambda", {"a": ["done"]}, "SUCCEEDED", ["dump a: done", "verify s/a/"], DONE),
        ("lambda", {"a": ["made before"]}, "SUCCEEDED", ["dump a: made before", "verify s/a/"], DONE),
        ("lambda", {"a": ["handover", "made before"]}, "SUCCEEDED",
         ["dump a: handover", "codebuild a", "dump a: made before", "verify s/a/"], DONE),
        ("codebuild", {"a": ["made before"]}, "SUCCEEDED",
         ["codebuild a", "dump a: made before", "verify s/a/"], DONE),
        ("lambda", {"a": ["elsewhere"]}, "SUCCEEDED", ["dump a: elsewhere"],
         "Logical backup left to another run, which says how it ends"),
        ("lambda", {"a": ["fails"], "b": ["done"]}, "FAILED", ["dump b: done", "verify s/b/"], None),
    ],
)  # fmt: skip
def test_each_database_is_dumped_where_it_fits_then_verified_and_told_of(default, engine, dumps, status, done, subject):
    workflow = LogicalBackup(default, dumps, engine)
    record = workflow.go()
    assert (record["status"], workflow.done) == (status, done), record.get("cause")
    ((told, message),) = workflow.told
    if subject:
        assert told == subject
    else:
        assert "1 of 2 databases were not backed up: a: DumpFailed: no such table" in message
