"""BackupAlerts: one encrypted topic that hears of everything that can cost a backup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jsii
from aws_cdk import aws_events as events
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from cdk_aurora_backup.backup_key import DESTRUCTIVE_ACTIONS
from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.permissions import add_to_key_policy, let_services_publish, topic_key_statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aws_cdk import aws_cloudwatch as cloudwatch
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_rds as rds
    from aws_cdk import aws_stepfunctions as sfn
    from aws_cdk.interfaces.aws_events import IRuleRef

_JOB_STATES = ["FAILED", "ABORTED", "EXPIRED", "PARTIAL"]
# "Amazon RDS event categories and event messages for Aurora"
_CLUSTER_CATEGORIES = ["backup", "failover", "failure", "deletion", "global-failover"]
_SNAPSHOT_CATEGORIES = ["backup", "deletion", "notification", "failure"]
# Every day's: a manual snapshot is being made; an automated one is being made; an automated one was made.
_ROUTINE = ["RDS-EVENT-0074", "RDS-EVENT-0168", "RDS-EVENT-0169"]


@jsii.implements(events.IRuleTarget)
class _Publish:
    """A topic as a rule's target, which leaves the policies alone: CDK's lets the services of every account publish."""

    def __init__(self, topic: sns.ITopic, message: events.RuleTargetInput) -> None:
        self._config = events.RuleTargetConfig(arn=topic.topic_arn, input=message)

    def bind(self, rule: IRuleRef, id: str | None = None) -> events.RuleTargetConfig:  # noqa: A002, ARG002
        """What the rule needs to know."""
        return self._config


class BackupAlerts(Construct):
    """An encrypted SNS topic, and the EventBridge rules that feed it.

    They watch failed, aborted, expired and partial AWS Backup jobs (backup, copy, restore); RDS events of the cluster
    and its snapshots; calls that would delete or disable a key, or change its policy (these reach EventBridge only
    where a CloudTrail trail records management events); and every workflow of this package that ends badly.

    key: encrypts the topic; its policy must let EventBridge and CloudWatch use it (BackupKey's does).
    emails: subscribers; each must confirm once. Default: none.
    topic: an existing topic. Default: one is made. The statements that the policy of an imported one must hold are
        said at synth; one of the same app gets them.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        key: kms.IKey,
        cluster: rds.IDatabaseCluster,
        emails: Sequence[str] = (),
        topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        for address in emails:
            if address.count("@") != 1 or not all(address.split("@")):
                raise SynthError(f"BackupAlerts.emails must be e-mail addresses, got {address!r}")
        self._topic = topic or sns.Topic(self, "Topic", master_key=key, enforce_ssl=True)
        let_services_publish(self, self._topic)
        if topic and topic.master_key:
            add_to_key_policy(self, topic.master_key, topic_key_statements(), note="topic-key-policy")
        for address in emails:
            self._topic.add_subscription(subscriptions.EmailSubscription(address))
        self._rules: list[events.Rule] = []
        for kind, field in (("Backup", "state"), ("Copy", "state"), ("Restore", "status")):
            self.watch(
                f"{kind}Jobs",
                f"An AWS Backup {kind.lower()} job did not complete",
                {"source": ["aws.backup"], "detail_type": [f"{kind} Job State Change"], "detail": {field: _JOB_STATES}},
            )
        name = cluster.cluster_identifier
        self.watch(
            "ClusterEvents",
            "The Aurora cluster reports an event that concerns its backups",
            {
                "source": ["aws.rds"],
                "detail_type": ["RDS DB Cluster Event"],
                "detail": {"SourceIdentifier": [name], "EventCategories": _CLUSTER_CATEGORIES},
            },
        )
        self.watch(
            "SnapshotEvents",
            "A manual cluster snapshot was made, or a cluster snapshot failed or was deleted",
            {
                "source": ["aws.rds"],
                "detail_type": ["RDS DB Cluster Snapshot Event"],
                "detail": {"EventCategories": _SNAPSHOT_CATEGORIES, "EventID": [{"anything-but": _ROUTINE}]},
            },
        )
        self.watch(
            "KeyCalls",
            "Somebody tried to delete or disable an encryption key, or changed its policy",
            {
                "source": ["aws.kms"],
                "detail_type": ["AWS API Call via CloudTrail"],
                "detail": {
                    "eventSource": ["kms.amazonaws.com"],
                    "eventName": [action.removeprefix("kms:") for action in (*DESTRUCTIVE_ACTIONS, "kms:PutKeyPolicy")],
                },
            },
        )

    @property
    def topic(self) -> sns.ITopic:
        """Where every alert goes."""
        return self._topic

    @property
    def rules(self) -> list[events.Rule]:
        """The EventBridge rules that feed the topic."""
        return list(self._rules)

    def watch(self, construct_id: str, title: str, pattern: dict[str, Any]) -> None:
        """Alert on every event that matches: the arguments of `events.EventPattern`."""
        message = events.RuleTargetInput.from_object(
            {
                "alert": title,
                "time": events.EventField.time,
                "region": events.EventField.region,
                "account": events.EventField.account,
                "resources": events.EventField.from_path("$.resources"),
                "detail": events.EventField.from_path("$.detail"),
            }
        )
        self._rules.append(
            events.Rule(
                self,
                construct_id,
                description=title,
                event_pattern=events.EventPattern(**pattern),
                targets=[_Publish(self._topic, message)],
            )
        )

    def watch_workflow(self, construct_id: str, machine: sfn.IStateMachine) -> None:
        """Alert when an execution fails, times out or is aborted, also where the workflow itself could not say so."""
        self.watch(
            construct_id,
            "A backup workflow ended badly",
            {
                "source": ["aws.states"],
                "detail_type": ["Step Functions Execution Status Change"],
                "detail": {
                    "stateMachineArn": [machine.state_machine_arn],
                    "status": ["FAILED", "TIMED_OUT", "ABORTED"],
                },
            },
        )

    def watch_alarm(self, alarm: cloudwatch.Alarm | cloudwatch.CompositeAlarm) -> None:
        """Send an alarm, and its recovery, to the topic."""
        from aws_cdk import aws_cloudwatch_actions as actions

        alarm.add_alarm_action(actions.SnsAction(self._topic))
        alarm.add_ok_action(actions.SnsAction(self._topic))
