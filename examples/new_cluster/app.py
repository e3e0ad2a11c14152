"""A protected Aurora cluster and its backups in one stack.

One key for everything, which only the break-glass role can delete; weekly snapshots kept longer than by default.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam

from cdk_aurora_backup import AuroraBackup, BackupKey, ProtectedCluster, RetentionPolicy


class Clinic(cdk.Stack):
    """The network is isolated: there is no way out of it, and none in."""

    def __init__(self, scope: cdk.App, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        policy = RetentionPolicy.hipaa().with_changes({"weekly": {"keep": {"days": 365}}})
        security = iam.Role.from_role_arn(self, "Security", "arn:aws:iam::111122223333:role/BreakGlass")
        key = BackupKey(self, "Key", break_glass=[security]).key
        vpc = ec2.Vpc(
            self,
            "Vpc",
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(name="Database", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
            ],
        )
        database = ProtectedCluster(self, "Database", vpc=vpc, key=key, policy=policy, database_name="clinic")
        backup = AuroraBackup(
            self,
            "Backup",
            cluster=database.details,
            vpc=vpc,
            key=key,
            break_glass=[security],  # the same as the key's: vault, topic and compliance report spare them, too
            policy=policy,
            snapshot_quota=200,
            alert_emails=["oncall@example.org"],
        )
        cdk.CfnOutput(self, "BackupBucket", value=backup.bucket.bucket_name)


app = cdk.App()
Clinic(app, "Clinic")
app.synth()
