"""Back up an Aurora cluster that exists already, and is managed by somebody else.

An imported cluster knows almost nothing about itself, so what cannot be asked for at synth is said here. The resource
id, the groups and the subnets are in the answer of `aws rds describe-db-clusters`. Replace every value.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager

from cdk_aurora_backup import AuroraBackup, ClusterDetails, RetentionPolicy

ACCOUNT, REGION = "111122223333", "eu-west-1"

app = cdk.App()
stack = cdk.Stack(app, "ClinicBackup", env=cdk.Environment(account=ACCOUNT, region=REGION))

vpc = ec2.Vpc.from_vpc_attributes(
    stack,
    "Vpc",
    vpc_id="vpc-0123456789abcdef0",
    availability_zones=["eu-west-1a", "eu-west-1b"],
    isolated_subnet_ids=["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
    # The S3 gateway endpoint is routed through these. With an endpoint of your own: create_endpoints=False below.
    isolated_subnet_route_table_ids=["rtb-0123456789abcdef0", "rtb-0123456789abcdef1"],
)
cluster = rds.DatabaseCluster.from_database_cluster_attributes(
    stack,
    "Cluster",
    cluster_identifier="clinic",
    cluster_endpoint_address="clinic.cluster-abcdefghijkl.eu-west-1.rds.amazonaws.com",
    port=5432,
    security_groups=[ec2.SecurityGroup.from_security_group_id(stack, "ClusterGroup", "sg-0123456789abcdef0")],
)
AuroraBackup(
    stack,
    "Backup",
    vpc=vpc,
    cluster=ClusterDetails(
        cluster=cluster,
        resource_id="cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        engine_version="16.6",
        secret=secretsmanager.Secret.from_secret_complete_arn(
            stack, "Login", f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:clinic-AbCdEf"
        ),
        key=kms.Key.from_key_arn(
            stack, "ClusterKey", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
        ),
    ),
    policy=RetentionPolicy.hipaa(),
    alert_emails=["oncall@example.org"],
)
app.synth()
