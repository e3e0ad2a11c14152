"""Roles and statements: a wildcard needs a reason, and the reason reaches the report."""

from __future__ import annotations

import json

import pytest
from aws_cdk import App, Stack, Validations
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks

from cdk_aurora_backup import SynthError
from cdk_aurora_backup.permissions import ServiceRole, statement
from tests.synth.synthesis import Synthesised, new_stack

LAMBDA = iam.ServicePrincipal("lambda.amazonaws.com")


def role(scope: Stack, *statements) -> ServiceRole:
    return ServiceRole(scope, "R", assumed_by=LAMBDA, description="d", statements=statements)


def test_a_statement_with_a_wildcard_but_no_reason_is_refused_by_its_sid():
    with pytest.raises(SynthError, match=r"statement Read must say why it needs the wildcard in 'arn:aws:s3:::b/\*'"):
        role(new_stack(), statement("Read", ["s3:GetObject"], ["arn:aws:s3:::b/*"]))


def test_a_role_is_closed_to_grants_from_elsewhere():
    stack = new_stack()
    made = role(stack, statement("Read", ["s3:GetObject"], ["arn:aws:s3:::b/a"]))
    made.role.add_to_principal_policy(iam.PolicyStatement(actions=["s3:*"], resources=["*"]))
    template = Synthesised.of(stack)
    assert [s for _, s in template.policies()] == [
        {"Sid": "Read", "Action": "s3:GetObject", "Effect": "Allow", "Resource": "arn:aws:s3:::b/a"}
    ]
    assert template.ids("AWS::IAM::Policy") == []


def test_each_wildcard_is_acknowledged_with_the_reasons_of_its_own_statements(tmp_path):
    app = App(outdir=str(tmp_path))
    stack = Stack(app, "S")
    role(
        stack,
        statement("A", ["ec2:DescribeSubnets"], ["*"], wildcard="First."),
        statement("B", ["xray:PutTraceSegments"], ["*"], wildcard="Second."),
        statement("C", ["xray:PutTelemetryRecords"], ["*"], wildcard="Second."),
        statement("D", ["s3:GetObject"], ["arn:aws:s3:::b/*"], wildcard="Third."),
    )
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()
    reports = json.loads((tmp_path / "validation-report.json").read_text())["pluginReports"]
    (report,) = [r for r in reports if r["pluginName"] == "AwsSolutions"]
    assert report["violations"] == []
    assert {s["acknowledgedId"]: s["reason"] for s in report["suppressedViolations"]} == {
        "AwsSolutions::AwsSolutions-IAM5[Resource::*]": "First. Second.",
        "AwsSolutions::AwsSolutions-IAM5[Resource::arn:aws:s3:::b/*]": "Third.",
    }
