"""DatabaseRole: the least-privileged PostgreSQL role that this package logs in as by IAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import CfnResource, CustomResource, Duration
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from cdk_aurora_backup.checks import SynthError

if TYPE_CHECKING:
    from cdk_aurora_backup.functions import BackupFunctions, DatabaseNetwork

_TIMEOUT = Duration.minutes(2)
_ANSWER_SECONDS = 600  # without it, CloudFormation waits an hour for a function that died


class DatabaseRole(Construct):
    """Makes the role `aurora_backup` when the stack is deployed, with the cluster's secret.

    A cluster without a secret needs the statements run by hand: `aurora-backup role-sql` prints them. Deleting
    the stack leaves the role, so that restored copies can still be opened, and never waits for a cluster that is gone.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, functions: BackupFunctions, network: DatabaseNetwork
    ) -> None:
        super().__init__(scope, construct_id)
        target = functions.target
        if not target.secret or not target.endpoint:
            raise SynthError(
                "DatabaseRole needs ClusterDetails.secret and .endpoint: without them run by hand what `aurora-backup "
                "role-sql` prints (docs/logical-backup.md), got "
                f"secret={target.secret!r}, endpoint={target.endpoint!r}"
            )
        self._function = functions.add(
            self,
            "Function",
            "database_role",
            description="Makes the PostgreSQL role that backups log in as",
            statements=[],
            network=network,
            timeout=_TIMEOUT,
        )
        resource = CustomResource(
            self,
            "Role",
            service_token=self._function.function_arn,
            properties={
                "host": target.endpoint,
                "port": target.listens_on,
                "version": "1",  # raised with the statements, so that an update runs them
            },
        )
        # As a number: CDK renders its own argument as text, which CloudFormation's schema does not know.
        child = resource.node.default_child
        if isinstance(child, CfnResource):
            child.add_property_override("ServiceTimeout", _ANSWER_SECONDS)
        # The role needs an instance to be made on, and the way there.
        resource.node.add_dependency(target.cluster, network)

    @property
    def function(self) -> lambda_.Function:
        """The function; calling it with `{"host", "port"}` grants again, for example after large objects were made."""
        return self._function
