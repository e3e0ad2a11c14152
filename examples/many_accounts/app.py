"""One policy in several accounts and Regions: `cdk deploy --all` brings all of it up, in order.

Three kinds of account: the protected ones; one that keeps copies that those cannot delete; and one that collects the
evidence of all of them, for the query in docs/athena.md. All are in one AWS Organization, with cross-account backup
switched on, and each is bootstrapped with `--trust` for the account that deploys. Replace every value.
"""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct  # noqa: TC002  an example reads best plainly

from cdk_aurora_backup import (
    AuroraBackup,
    BackupVaultAccount,
    ProtectedCluster,
    ReplicaBucket,
    ReplicateTo,
    RetentionPolicy,
)
from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.replication import EVIDENCE_PREFIX, REGISTERS_PREFIX

POLICY = RetentionPolicy.hipaa().with_changes({"weekly": {"keep": {"days": 365}}})
KEEPER, AUDIT = "444455556666", "777788889999"
AUDIT_REGION = "eu-west-1"
PROTECTED = (("111122223333", "eu-west-1"), ("111122223333", "eu-central-1"), ("222233334444", "eu-west-1"))


class AuditAccount(cdk.Stack):
    """One bucket for each source: evidence keeps its key when it is replicated, and sources may share their names."""

    def __init__(self, scope: Construct, construct_id: str, **stack: Any) -> None:
        super().__init__(scope, construct_id, **stack)
        self.evidence = {
            (account, region): ReplicateTo(
                to=ReplicaBucket(
                    self,
                    f"Evidence{account}{region.title().replace('-', '')}",
                    name=f"clinic-evidence-{account}-{region}",
                    copies_from=[account],
                    policy=POLICY,
                    locked_days=POLICY.evidence_keep.most_days,
                ).replica,
                prefixes=(EVIDENCE_PREFIX, REGISTERS_PREFIX),
            )
            for account, region in PROTECTED
        }


class Clinic(cdk.Stack):
    """One protected cluster, in one account and Region."""

    def __init__(
        self, scope: Construct, construct_id: str, *, keeper: BackupVaultAccount, evidence: ReplicateTo, **stack: Any
    ) -> None:
        super().__init__(scope, construct_id, **stack)
        key = BackupKey(self, "Key").key
        subnets = [ec2.SubnetConfiguration(name="Data", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)]
        vpc = ec2.Vpc(
            self,
            "Vpc",
            nat_gateways=0,
            availability_zones=[f"{self.region}a", f"{self.region}b"],
            subnet_configuration=subnets,
        )
        cluster = ProtectedCluster(self, "Database", vpc=vpc, key=key, policy=POLICY)
        AuroraBackup(
            self,
            "Backup",
            cluster=cluster.details,
            vpc=vpc,
            key=key,
            policy=POLICY,
            alert_emails=["oncall@example.org"],
            copies=[keeper.copy_from(self, "Copies")],
            replicate_to=[keeper.replicate_to, evidence],
            audit=True,
        )


app = cdk.App()
audit = AuditAccount(app, "Audit", env=cdk.Environment(account=AUDIT, region=AUDIT_REGION))
keepers = {
    # A copy of an Aurora snapshot changes the account or the Region, so there is a vault in each Region.
    region: BackupVaultAccount(
        app,
        f"Keeper-{region}",
        env=cdk.Environment(account=KEEPER, region=region),
        policy=POLICY,
        copies_from=sorted({account for account, elsewhere in PROTECTED if elsewhere == region}),
    )
    for region in sorted({region for _, region in PROTECTED})
}
for account, region in PROTECTED:
    clinic = Clinic(
        app,
        f"Clinic-{account}-{region}",
        keeper=keepers[region],
        evidence=audit.evidence[account, region],
        env=cdk.Environment(account=account, region=region),
    )
    # By name only, so CloudFormation does not know: what receives must be there before what sends.
    clinic.add_stack_dependency(keepers[region])
    clinic.add_stack_dependency(audit)
app.synth()
