"""TamperAlerts: every call that would destroy a backup, or silence what watches over it, is told at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_cdk import Stack
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_s3 as s3

    from cdk_aurora_backup.alerts import BackupAlerts

# Event names as CloudTrail writes them: Lambda's carry an API version.
_BACKUP = (
    "DeleteBackupPlan",
    "DeleteBackupSelection",
    "DeleteBackupVault",
    "DeleteBackupVaultAccessPolicy",
    "DeleteBackupVaultLockConfiguration",
    "DeleteBackupVaultNotifications",
    "DeleteRecoveryPoint",
    "DisassociateRecoveryPoint",
    "PutBackupVaultAccessPolicy",
    "PutBackupVaultLockConfiguration",
    "PutBackupVaultNotifications",
    "UpdateBackupPlan",
    "UpdateRecoveryPointLifecycle",
    "UpdateRegionSettings",
)
_RDS = (
    "DeleteDBCluster",
    "DeleteDBClusterAutomatedBackup",
    "DeleteDBClusterSnapshot",
    "ModifyDBCluster",
    "ModifyDBClusterSnapshotAttribute",
)
_S3 = (
    "DeleteBucket",
    "DeleteBucketEncryption",
    "DeleteBucketLifecycle",
    "DeleteBucketPolicy",
    "DeleteBucketPublicAccessBlock",
    "DeleteBucketReplication",
    "PutBucketEncryption",
    "PutBucketLifecycle",
    "PutBucketLogging",
    "PutBucketObjectLockConfiguration",
    "PutBucketPolicy",
    "PutBucketPublicAccessBlock",
    "PutBucketReplication",
    "PutBucketVersioning",
)
_EVENTS = ("DeleteRule", "DisableRule", "PutRule", "PutTargets", "RemoveTargets")
_ALARMS = ("DeleteAlarms", "DisableAlarmActions", "PutMetricAlarm")
_LAMBDA = (
    "DeleteFunction20150331",
    "PutFunctionConcurrency20171031",
    "UpdateFunctionCode20150331v2",
    "UpdateFunctionConfiguration20150331v2",
)
_WORKFLOWS = ("DeleteStateMachine", "UpdateStateMachine")
_SCHEDULES = ("DeleteSchedule", "UpdateSchedule")
_TOPICS = (
    "DeleteTopic",
    "PutDataProtectionPolicy",
    "RemovePermission",
    "SetSubscriptionAttributes",
    "SetTopicAttributes",
    "Unsubscribe",
)
_TRAILS = ("DeleteTrail", "PutEventSelectors", "StopLogging", "UpdateTrail")
_ROLES = (
    "AttachRolePolicy",
    "CreatePolicyVersion",
    "DeletePolicy",
    "DeletePolicyVersion",
    "DeleteRole",
    "DeleteRolePermissionsBoundary",
    "DeleteRolePolicy",
    "DetachRolePolicy",
    "PutRolePermissionsBoundary",
    "PutRolePolicy",
    "SetDefaultPolicyVersion",
    "UpdateAssumeRolePolicy",
)
_CLOUDFORMATION = ["cloudformation.amazonaws.com"]  # what CloudTrail writes as the source of its calls
_STACKS = ("DeleteStack", "ExecuteChangeSet", "UpdateStack")
# CloudFormation makes names of the stack's name, the logical id and a random end, and cuts what is longer than the
# service allows: of a stack's name it has been seen to leave 24 characters. It documents none of it.
_LEFT_OF_NAME = 24


class TamperAlerts(Construct):
    """EventBridge rules over CloudTrail's management events, one for each service, that feed the alert topic.

    They need a CloudTrail trail that records management events. Calls that CloudFormation makes are left out, and the
    deployment itself is told instead; a change set that is executed by its ARN names no stack, so that one of any stack
    is told. What another stack does to these resources is not. Two rules watch the rules, so that deleting either is
    told by the other; whoever deletes both before the first event arrives is heard once. Deleting an object version is
    a data event: it is not among them. IAM tells of its calls in one Region of the partition only (us-east-1,
    us-gov-west-1, cn-north-1): in any other, `RoleCalls` hears nothing until a rule there sends `aws.iam` on to this
    Region's event bus.

    Rules, functions and roles are known by how their names begin, so that another stack whose name begins with the same
    24 characters is told of too. Workflows and schedules are known by their ARNs and names: make this construct last,
    because those are watched that stand in `scope` already.

    break_glass: roles whose trust and permissions are watched too, beside the stack's own.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        alerts: BackupAlerts,
        bucket: s3.IBucket,
        break_glass: Sequence[iam.IRole] = (),
    ) -> None:
        super().__init__(scope, construct_id)
        self._alerts = alerts
        stack = _outermost(Stack.of(self)).stack_name
        start = f"{stack}-" if len(stack) < _LEFT_OF_NAME else stack[:_LEFT_OF_NAME]
        ours = [{"prefix": start}]
        anywhere = [{"wildcard": f"*:function:{start}*"}, *ours]
        made = scope.node.find_all()
        machines = [each.state_machine_arn for each in made if isinstance(each, sfn.StateMachine)]
        schedules = [each.schedule_name for each in made if isinstance(each, scheduler.Schedule)]
        self._tell("BackupCalls", "backup", "AWS Backup's vaults, plans or recovery points", _BACKUP)
        self._tell("ClusterCalls", "rds", "the cluster, its backups or who may read them", _RDS)
        self._tell("BucketCalls", "s3", "the backup bucket's protection", _S3, {"bucketName": [bucket.bucket_name]})
        for construct in ("RuleCalls", "RuleCallsAgain"):
            self._tell(
                construct,
                "events",
                "the rules that watch over backups",
                _EVENTS,
                {"$or": [{"name": ours}, {"rule": ours}]},
            )
        self._tell("AlarmCalls", "monitoring", "the alarms on backups", _ALARMS)
        self._tell("FunctionCalls", "lambda", "the functions that back up", _LAMBDA, {"functionName": anywhere})
        if machines:
            self._tell(
                "WorkflowCalls", "states", "the workflows that back up", _WORKFLOWS, {"stateMachineArn": machines}
            )
        if schedules:
            self._tell("ScheduleCalls", "scheduler", "the schedules of backups", _SCHEDULES, {"name": schedules})
        roles = [*ours, *(role.role_name for role in break_glass)]
        policies = [{"wildcard": f"*:policy/{start}*"}]
        by_role = {"$or": [{"roleName": roles}, {"policyArn": policies}]}
        self._tell("RoleCalls", "iam", "a role of the backups, or the break-glass role", _ROLES, by_role)
        self._tell("TopicCalls", "sns", "where alerts go", _TOPICS)
        self._tell("TrailCalls", "cloudtrail", "the record of calls that these alerts rest on", _TRAILS)
        by_stack = {"$or": [{"stackName": [{"wildcard": f"*{stack}*"}]}, {"changeSetName": [{"prefix": "arn:"}]}]}
        self._tell("StackCalls", "cloudformation", "the backup stack", _STACKS, by_stack)

    def _tell(
        self,
        construct_id: str,
        service: str,
        what: str,
        names: Sequence[str],
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        by_hand = {} if service == "cloudformation" else {"sourceIPAddress": [{"anything-but": _CLOUDFORMATION}]}
        self._alerts.watch(
            construct_id,
            f"Somebody asked to change {what}",
            {
                "source": [f"aws.{service}"],
                "detail_type": ["AWS API Call via CloudTrail"],
                "detail": {
                    "eventSource": [f"{service}.amazonaws.com"],
                    "eventName": list(names),
                    **by_hand,
                    **({"requestParameters": dict(parameters)} if parameters else {}),
                },
            },
        )


def _outermost(stack: Stack) -> Stack:
    """The stack whose name a deployment gives: a nested one's own begins with it, and is not known at synth."""
    parent = stack.nested_stack_parent
    return _outermost(parent) if parent else stack
