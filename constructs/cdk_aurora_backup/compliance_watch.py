"""ComplianceWatch: alarms on what the reports measure, one composite alarm that acts, and a dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from aurora_backup.checks_completion import longest_gap, streams
from aurora_backup.compliance_metrics import NAMESPACE
from aurora_backup.retention import LATE
from cdk_aurora_backup.permissions import acknowledge

if TYPE_CHECKING:
    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.functions import BackupFunctions

_DAY = Duration.days(1)
_HOUR = 3600.0
_NO_ACTION = "One composite alarm acts for it, so that one cause gives one alert."
_OVER = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
_UNDER = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD


class ComplianceWatch(Construct):
    """Alarms on the verdict, each tier's recovery point and the last recovery test; a report that is missing breaches.

    They do not act themselves: the composite alarm does, once, whatever the number of causes.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, functions: BackupFunctions, alerts: BackupAlerts
    ) -> None:
        super().__init__(scope, construct_id)
        self._owner, policy = functions.owner, functions.policy
        self._alarms = [
            self._alarm(
                "NotCompliant", self._metric("CompliancePassed", "Minimum"), 1, _UNDER, "The last report is no pass"
            ),
            self._alarm(
                "RecoveryTestOld",
                self._metric("RecoveryTestAge"),
                policy.recovery_testing.max_age_days * 24 * _HOUR,
                _OVER,
                "No recovery test has ended for too long",
            ),
        ]
        self._ages: list[cloudwatch.IMetric] = []
        for stream in streams(policy):
            age = self._metric("RecoveryPointAge", Stream=stream.name)
            allowed = (longest_gap(stream.schedule) + LATE).total_seconds()
            title = "".join(part.title() for part in stream.name.split("-"))
            self._alarms.append(
                self._alarm(f"{title}Old", age, allowed, _OVER, f"The newest recovery point ({stream.name}) is too old")
            )
            self._ages.append(age)
        rule = cloudwatch.AlarmRule.any_of(
            *(cloudwatch.AlarmRule.from_alarm(alarm, cloudwatch.AlarmState.ALARM) for alarm in self._alarms)
        )
        self._composite = cloudwatch.CompositeAlarm(
            self,
            "Composite",
            alarm_rule=rule,
            alarm_description="Backups are not shown to be compliant: open the newest compliance report",
        )
        resource = self._composite.node.default_child
        if isinstance(resource, cloudwatch.CfnCompositeAlarm):
            # CDK makes up a name; CloudFormation does better, because it can then replace the alarm.
            resource.add_property_deletion_override("AlarmName")
        alerts.watch_alarm(self._composite)
        self._dashboard = self._make_dashboard()

    @property
    def alarms(self) -> list[cloudwatch.Alarm]:
        """One for each cause; they do not act."""
        return list(self._alarms)

    @property
    def composite(self) -> cloudwatch.CompositeAlarm:
        """Acts when any of them goes off."""
        return self._composite

    @property
    def dashboard(self) -> cloudwatch.Dashboard:
        """Verdict, recovery points, recovery test, dumps."""
        return self._dashboard

    def _metric(self, name: str, statistic: str = "Maximum", **dimensions: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=NAMESPACE,
            metric_name=name,
            dimensions_map={"Owner": self._owner, **dimensions},
            statistic=statistic,
            period=_DAY,
        )

    def _alarm(
        self,
        construct_id: str,
        metric: cloudwatch.IMetric,
        threshold: float,
        comparison: cloudwatch.ComparisonOperator,
        told: str,
    ) -> cloudwatch.Alarm:
        alarm = cloudwatch.Alarm(
            self,
            construct_id,
            metric=metric,
            threshold=threshold,
            comparison_operator=comparison,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
            alarm_description=f"{told}, or no report came for a day",
        )
        acknowledge(alarm, "CloudWatchAlarmAction", _NO_ACTION, ("hipaa", "nist"))
        return alarm

    def _make_dashboard(self) -> cloudwatch.Dashboard:
        def single(title: str, *metrics: cloudwatch.IMetric) -> cloudwatch.SingleValueWidget:
            return cloudwatch.SingleValueWidget(title=title, metrics=list(metrics), width=8, height=4)

        def graph(title: str, *metrics: cloudwatch.IMetric, label: str) -> cloudwatch.GraphWidget:
            axis = cloudwatch.YAxisProps(label=label, min=0, show_units=False)
            return cloudwatch.GraphWidget(title=title, left=list(metrics), left_y_axis=axis, width=12, height=6)

        board = cloudwatch.Dashboard(self, "Dashboard", default_interval=Duration.days(90))
        board.add_widgets(
            single("Passed (1) or not (0)", self._metric("CompliancePassed", "Minimum")),
            single("Checks", self._metric("ComplianceFailed"), self._metric("ComplianceUnknown")),
            cloudwatch.AlarmStatusWidget(title="Alarms", alarms=[self._composite, *self._alarms], width=8, height=4),
        )
        board.add_widgets(
            graph("Recovery point by tier: age of the newest", *self._ages, label="seconds"),
            graph("Recovery time, last recovery test", self._metric("RecoveryTime"), label="seconds"),
        )
        board.add_widgets(
            graph("Last recovery test: age", self._metric("RecoveryTestAge"), label="seconds"),
            graph("Newest dump sets: duration", self._metric("DumpDuration"), label="seconds"),
        )
        board.add_widgets(
            graph("Newest dump sets: rate", self._metric("DumpRate"), label="bytes per second"),
            graph("Newest dump sets: size", self._metric("DumpBytes"), label="bytes"),
        )
        # The tiers and kinds are those of whatever exists: the retention manager measures them.
        by_tier = (
            f'SEARCH(\'{{{NAMESPACE},Owner,Tier,Kind}} MetricName="MonthlyCost" Owner="{self._owner}"\', '
            f"'Maximum', {_DAY.to_seconds()})"
        )

        def cost(expression: str, label: str) -> cloudwatch.MathExpression:
            return cloudwatch.MathExpression(expression=expression, label=label, using_metrics={}, period=_DAY)

        board.add_widgets(
            graph("Cost of a month by tier, at list prices", cost(by_tier, ""), label="USD"),
            single("Cost of a month, all tiers (USD)", cost(f"SUM({by_tier})", "all tiers")),
        )
        return board
