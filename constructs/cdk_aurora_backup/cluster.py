"""What the other constructs need to know of the cluster that they protect, however it came to be known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aws_cdk import ArnFormat, Stack, Token
from aws_cdk import aws_rds as rds

from cdk_aurora_backup.checks import SynthError, check_identifier, known

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_secretsmanager as secretsmanager


_POSTGRES_PORT = 5432


@dataclass(frozen=True, kw_only=True)
class ClusterDetails:
    """A cluster, and what an import does not know about itself.

    cluster: any `rds.IDatabaseCluster`. An imported one (`rds.DatabaseCluster.from_database_cluster_attributes`)
        needs its security groups, so that a way to it can be opened.
    resource_id: DbClusterResourceId, `cluster-...`: names are reused after a deletion, this is not.
    engine_version: for example "17.9"; checked against the client's version at run time.
    endpoint: the cluster endpoint's address; without it the role `aurora_backup` has to be made by hand.
    port: Default: 5432, or what a cluster of the same app says.
    secret: a Secrets Manager secret with `username` and `password`.
    key: the customer key of the cluster's storage. Needed where recovery points are copied or restored.
    """

    cluster: rds.IDatabaseCluster
    resource_id: str
    engine_version: str | None = None
    endpoint: str | None = None
    port: int = _POSTGRES_PORT
    secret: secretsmanager.ISecret | None = None
    key: kms.IKey | None = None

    def __post_init__(self) -> None:
        check_identifier("ClusterDetails.cluster identifier", self.cluster.cluster_identifier)
        identifier = self.cluster.cluster_identifier
        if known(identifier) and identifier != identifier.lower():
            raise SynthError(
                f"ClusterDetails.cluster identifier must be in lower case, as RDS keeps it, got {identifier!r}: ARNs "
                "and events have it so, and would not match"
            )
        if not self.cluster.connections.security_groups:
            raise SynthError(
                f"ClusterDetails.cluster {self.cluster.node.path} must have security_groups, got none: no way to it "
                "could be opened"
            )
        engine = self.cluster.engine
        if engine and engine.engine_type != "aurora-postgresql":
            raise SynthError(
                f"ClusterDetails.cluster must be of the engine aurora-postgresql, got {engine.engine_type!r}"
            )
        if known(self.resource_id) and not self.resource_id.startswith("cluster-"):
            raise SynthError(
                "ClusterDetails.resource_id must be the DbClusterResourceId, which begins with 'cluster-' "
                f"(aws rds describe-db-clusters shows it), got {self.resource_id!r}"
            )

    @classmethod
    def of(cls, cluster: rds.IDatabaseCluster) -> Self:
        """The details of a cluster of the same app. Raises SynthError for an imported one: it does not know them."""
        if not isinstance(cluster, (rds.DatabaseCluster, rds.DatabaseClusterFromSnapshot)):
            raise SynthError(
                f"cluster {cluster.node.path} is imported: say what it does not know about itself, with "
                "ClusterDetails(cluster=..., resource_id=..., secret=...)"
            )
        port = next((c.port for c in cluster.node.find_all() if isinstance(c, rds.CfnDBCluster)), None)
        version = cluster.engine.engine_version if cluster.engine else None
        return cls(
            cluster=cluster,
            resource_id=cluster.cluster_resource_identifier,
            engine_version=version.full_version if version else None,
            endpoint=cluster.cluster_endpoint.hostname,
            port=int(port) if port and known(port) else _POSTGRES_PORT,
            secret=cluster.secret,
        )

    @property
    def is_of_this_app(self) -> bool:
        """Whether the cluster is made here, and not imported."""
        return isinstance(self.cluster, (rds.DatabaseCluster, rds.DatabaseClusterFromSnapshot))

    @property
    def listens_on(self) -> str:
        """The port as the deployed cluster says it, where it is of the same app."""
        if isinstance(self.cluster, (rds.DatabaseCluster, rds.DatabaseClusterFromSnapshot)):
            return Token.as_string(self.cluster.cluster_endpoint.port)
        return str(self.port)

    @property
    def arn(self) -> str:
        """The cluster's ARN, in the stack's partition, account and Region."""
        return Stack.of(self.cluster).format_arn(
            service="rds",
            resource="cluster",
            resource_name=self.cluster.cluster_identifier,
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
