"""BackupFunctions: how every Lambda function of this package is made, so that none is made otherwise."""

from __future__ import annotations

import json
import re
import ssl
from typing import TYPE_CHECKING, Any, Literal

import jsii
from aws_cdk import Annotations, ArnFormat, Duration, RemovalPolicy, Size, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct, IValidation

from aurora_backup.database_role import ROLE
from cdk_aurora_backup.assets import CLIENT_WHEELS, postgres_layer, runtime_code
from cdk_aurora_backup.checks import SynthError, known
from cdk_aurora_backup.naming import owner_of
from cdk_aurora_backup.permissions import (
    COMPLIANCE_PACKS,
    ServiceRole,
    acknowledge,
    network_interfaces,
    statement,
    tracing,
    use_key,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3
    from constructs import IConstruct

    from aurora_backup.policy import RetentionPolicy
    from cdk_aurora_backup.cluster import ClusterDetails
    from cdk_aurora_backup.permissions import Statement

DatabaseAuth = Literal["iam", "secret"]
_RUNTIME = lambda_.Runtime.PYTHON_3_14  # Amazon Linux 2023: the clients need its glibc, 2.34
_LOGS_KEPT = logs.RetentionDays.ONE_YEAR
_QUEUE_KEPT = Duration.days(14)
_ENVIRONMENT_LIMIT = 4096  # bytes of names and values together; Lambda refuses more


class DatabaseNetwork(Construct):
    """A security group for the functions that open PostgreSQL, let in by the cluster, and the endpoints that they call.

    vpc: where the cluster is. subnets: Default: isolated subnets.
    create_endpoints: True makes the VPC endpoints that the functions call, where this app has not made them in the VPC
        already: the S3 gateway and, with a secret, Secrets Manager. False demands that they exist. Default: True.
    opens: what the functions open. Default: the cluster.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        vpc: ec2.IVpc,
        target: ClusterDetails,
        opens: ec2.IConnectable | None = None,
        subnets: ec2.SubnetSelection | None = None,
        create_endpoints: bool = True,
    ) -> None:
        super().__init__(scope, construct_id)
        self.vpc = vpc
        self.subnets = subnets or ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
        self._group = ec2.SecurityGroup(
            self, "Group", vpc=vpc, description="Backup functions that open PostgreSQL", allow_all_outbound=False
        )
        # From our side, so that the rule is ours too where the cluster is another stack's.
        self._group.connections.allow_to(
            opens or target.cluster, ec2.Port.tcp(target.port), "Backups read the database"
        )
        # HTTPS: the S3 gateway has no security group to name, interface endpoints live in the VPC.
        self._group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "S3 and Secrets Manager endpoints")
        self._create = create_endpoints
        if create_endpoints:
            self._s3_endpoint()
        if target.secret:
            service = ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER
            self.reach("BackupSecrets", "secretsmanager", service, "Backup functions read the database secret")

    @property
    def creates_endpoints(self) -> bool:
        """Whether the endpoints that are called are made here, or demanded to exist."""
        return self._create

    @property
    def security_group(self) -> ec2.SecurityGroup:
        """The group of the functions; what they may reach lets it in."""
        return self._group

    @property
    def subnet_ids(self) -> list[str]:
        """The subnets of the functions."""
        chosen = self.subnets
        return self.vpc.select_subnets(
            availability_zones=chosen.availability_zones,
            one_per_az=chosen.one_per_az,
            subnet_filters=chosen.subnet_filters,
            subnet_group_name=chosen.subnet_group_name,
            subnets=chosen.subnets,
            subnet_type=chosen.subnet_type,
        ).subnet_ids

    def _endpoint(self, service: str) -> IConstruct | None:
        """The endpoint for an AWS service that this app has made in the VPC already: a VPC takes only one of each."""
        for resource in self.vpc.node.find_all():
            if isinstance(resource, ec2.CfnVPCEndpoint):
                name = json.dumps(Stack.of(resource).resolve(resource.service_name))
                if re.search(rf'\.{service}"', name):
                    return resource.node.scope
        return None

    def _s3_endpoint(self) -> None:
        if self._endpoint("s3"):
            return
        try:
            self.vpc.add_gateway_endpoint(
                "BackupS3", service=ec2.GatewayVpcEndpointAwsService.S3, subnets=[self.subnets]
            )
        except RuntimeError as error:  # what CDK raises for an imported VPC that came without them
            raise SynthError(
                f"{self.node.path}: the subnets of an imported VPC need their route tables for the S3 gateway endpoint "
                "(isolated_subnet_route_table_ids), got none; or create_endpoints must be False"
            ) from error

    def reach(self, construct_id: str, name: str, service: ec2.InterfaceVpcEndpointAwsService, why: str) -> None:
        """Let what runs here reach one more AWS service: its interface endpoint is made, or demanded to exist."""
        if not self._create:
            return
        endpoint = self._endpoint(name)
        if not isinstance(endpoint, ec2.InterfaceVpcEndpoint):
            endpoint = self.vpc.add_interface_endpoint(construct_id, service=service, subnets=self.subnets, open=False)
        self._group.connections.allow_to(endpoint, ec2.Port.tcp(443), why)


@jsii.implements(IValidation)
class _EnvironmentsFit:
    """Refuses at synth what Lambda would refuse at deployment. What only CloudFormation knows counts as nothing."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.environments: dict[str, dict[str, str]] = {}
        """By the function's path."""

    def validate(self) -> list[str]:
        """One line for each function whose environment is too long for certain."""
        found = []
        for path, variables in self._stack.resolve(self.environments).items():
            sizes = {name: len(name) + _known_bytes(value) for name, value in variables.items()}
            if (least := sum(sizes.values())) > _ENVIRONMENT_LIMIT:
                longest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
                found.append(
                    f"the environment of {path} must be at most {_ENVIRONMENT_LIMIT} bytes, and is at "
                    f"least {least}: {', '.join(f'{name} {sizes[name]}' for name in longest)}"
                )
        return found


def _known_bytes(value: Any) -> int:
    """How long a resolved value is at least."""
    if isinstance(value, dict):
        _, parts = value.get("Fn::Join", ("", ()))
        return sum(len(part.encode()) for part in parts if isinstance(part, str))
    return len(str(value).encode())


class BackupFunctions(Construct):
    """Makes Lambda functions: bundled code, own role, encrypted log group and dead-letter queue, tracing, limits.

    architecture: Default: ARM_64.
    clients: a layer with `pg_dump` and `pg_restore` in bin/. Default: the one that this package brings.
    database_auth: how functions log in where they do not say: "secret", as the owner of the data, or "iam", as the
        role `aurora_backup`. Default: "secret" where the cluster has one.
    root_certificates: path of a PEM with the authorities of the database's certificate. Default: those of RDS, which
        are shipped for every Region but GovCloud's.
    reserved_concurrency: for each function; None takes the account's pool, for accounts with a small one. Default: 2.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        target: ClusterDetails,
        policy: RetentionPolicy,
        bucket: s3.IBucket,
        key: kms.IKey,
        architecture: lambda_.Architecture | None = None,
        clients: lambda_.ILayerVersion | None = None,
        database_auth: DatabaseAuth | None = None,
        root_certificates: str | None = None,
        reserved_concurrency: int | None = 2,
    ) -> None:
        super().__init__(scope, construct_id)
        self.target, self.policy, self.bucket, self.key = target, policy, bucket, key
        self._architecture = architecture or lambda_.Architecture.ARM_64
        self._clients, self._own_clients = clients, clients is not None
        self._server: lambda_.ILayerVersion | None = None
        self._reserved = reserved_concurrency
        if reserved_concurrency is not None and known(reserved_concurrency) and reserved_concurrency < 1:
            raise SynthError(
                "BackupFunctions.reserved_concurrency must be 1 or more, or None for the account's pool, "
                f"got {reserved_concurrency}: with less, no function would run"
            )
        if ":alias/" in key.key_arn:
            raise SynthError(
                f"BackupFunctions.key must be a key and not an alias, whose ARN no policy can name, got {key.key_arn!r}"
            )
        if database_auth not in (None, "iam", "secret"):
            raise SynthError(f"BackupFunctions.database_auth must be 'iam' or 'secret', got {database_auth!r}")
        if clients is None:
            self._check_version(target.engine_version)
        self.root_certificates = self._check_root_certificates(root_certificates)
        self._auth: DatabaseAuth = database_auth or ("secret" if target.secret else "iam")
        if self._auth == "secret" and not target.secret:
            raise SynthError("BackupFunctions.database_auth 'secret' needs ClusterDetails.secret, got none")
        self._owner = owner_of(self.node.scope or self)
        self._environments: dict[DatabaseAuth, dict[str, str]] = {}
        self._fit = _EnvironmentsFit(Stack.of(self))
        self.node.add_validation(self._fit)
        self._queue = sqs.Queue(
            self,
            "DeadLetters",
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=key,
            enforce_ssl=True,
            retention_period=_QUEUE_KEPT,
        )
        self._undelivered = cloudwatch.Alarm(
            self,
            "Undelivered",
            alarm_description="A schedule or an event reached no workflow and no function: see the dead-letter queue",
            metric=self._queue.metric_approximate_number_of_messages_visible(
                period=Duration.minutes(5), statistic="Maximum"
            ),
            threshold=1,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )

    def _check_version(self, version: str | None) -> None:
        ours = CLIENT_WHEELS[self._architecture.name].postgresql
        major = (version or "").partition(".")[0]
        if known(version) and major.isdecimal() and int(major) > int(ours.partition(".")[0]):
            raise SynthError(
                f"ClusterDetails.engine_version must not be newer than the clients' PostgreSQL {ours}, got "
                f"{version!r}: pg_dump refuses a newer server; give clients= a layer of that version"
            )

    def _check_root_certificates(self, path: str | None) -> str | None:
        region = Stack.of(self).region
        if path is None and known(region) and region.startswith("us-gov-"):
            Annotations.of(self).add_warning_v2(
                "cdk-aurora-backup:root-certificates",
                f"No function can verify the database's certificate in {region}: GovCloud's authorities are not "
                f"shipped. Download https://truststore.pki.{region}.rds.amazonaws.com/global/global-bundle.pem and "
                "name the file in root_certificates.",
            )
        if path is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            except (OSError, ssl.SSLError) as error:
                raise SynthError(
                    f"BackupFunctions.root_certificates must be the path of a PEM with certificates, got {path!r}: "
                    f"{error}"
                ) from None
        return path

    @property
    def owner(self) -> str:
        """Whose what these functions make is; `owner_of` says more."""
        return self._owner

    @property
    def architecture(self) -> lambda_.Architecture:
        """What the functions run on."""
        return self._architecture

    @property
    def brings_own_clients(self) -> bool:
        """Whether the caller gave a layer of clients, which then serves the functions only."""
        return self._own_clients

    @property
    def dead_letters(self) -> sqs.Queue:
        """Where events go that no function could take."""
        return self._queue

    @property
    def undelivered(self) -> cloudwatch.Alarm:
        """Goes off while the dead-letter queue holds anything; whoever makes the functions sends it somewhere."""
        return self._undelivered

    @property
    def clients(self) -> lambda_.ILayerVersion:
        """The layer with PostgreSQL's clients."""
        self._clients = self._clients or postgres_layer(self, "Clients", self._architecture)
        return self._clients

    @property
    def server(self) -> lambda_.ILayerVersion:
        """The layer with PostgreSQL's server and clients, for trial restores."""
        self._server = self._server or postgres_layer(self, "Server", self._architecture, server=True)
        return self._server

    def add(
        self,
        scope: Construct,
        construct_id: str,
        handler: str,
        *,
        description: str,
        statements: Sequence[Statement] = (),
        under: lambda_.Function | None = None,
        network: DatabaseNetwork | None = None,
        layers: Sequence[lambda_.ILayerVersion] = (),
        environment: Mapping[str, str] | None = None,
        databases: Sequence[str] = (),
        database_auth: DatabaseAuth | None = None,
        timeout: Duration | None = None,
        memory_mb: int = 512,
        storage_mb: int = 512,
    ) -> lambda_.Function:
        """One function. handler: a module of `aurora_backup.handlers`. network: for functions that open PostgreSQL.

        under: a function whose role, and with it log group, this one shares: it may do exactly what that one may.
        databases: which ones it dumps or reads; it finds them itself where none is named.
        database_auth: how this function logs in. Default: as all do.
        """
        if under and (statements or network):
            raise SynthError(
                f"{scope.node.path}/{construct_id}: a function under the role of {under.node.path} takes it as it is, "
                "without statements and network of its own"
            )
        role, group, ready = (
            (under.role, under.log_group, under)
            if under
            else self._role(scope, construct_id, description, statements, network, database_auth)
        )
        told = {**self.environment(database_auth), **(environment or {})}
        if databases:
            told["DATABASES"] = Stack.of(self).to_json_string(list(databases))
        function = lambda_.Function(
            scope,
            construct_id,
            description=description,
            runtime=_RUNTIME,
            architecture=self._architecture,
            code=runtime_code(self.root_certificates),
            handler=f"aurora_backup.handlers.{handler}.handler",
            layers=list(layers),
            environment=told,
            environment_encryption=self.key,
            timeout=timeout or Duration.minutes(1),
            memory_size=memory_mb,
            ephemeral_storage_size=Size.mebibytes(storage_mb),
            role=role,
            log_group=group,
            tracing=lambda_.Tracing.ACTIVE,
            dead_letter_queue=self._queue,
            reserved_concurrent_executions=self._reserved,
            vpc=network.vpc if network else None,
            vpc_subnets=network.subnets if network else None,
            security_groups=[network.security_group] if network else None,
        )
        function.node.add_dependency(ready)
        self._fit.environments[function.node.path] = told
        if not network:
            acknowledge(
                function,
                "LambdaInsideVPC",
                "Calls AWS APIs only, and never the database: inside the VPC it would only need more endpoints.",
                COMPLIANCE_PACKS,
            )
        if self._reserved is None:
            acknowledge(
                function, "LambdaConcurrency", "The caller asked for the account's unreserved pool.", COMPLIANCE_PACKS
            )
        return function

    def _role(
        self,
        scope: Construct,
        construct_id: str,
        description: str,
        statements: Sequence[Statement],
        network: DatabaseNetwork | None,
        database_auth: DatabaseAuth | None,
    ) -> tuple[iam.IRole, logs.ILogGroup, IConstruct]:
        """A function's own role and log group, and what must be there before it runs."""
        group = logs.LogGroup(
            scope,
            f"{construct_id}Logs",
            encryption_key=self.key,
            retention=_LOGS_KEPT,
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = ServiceRole(
            scope,
            f"{construct_id}Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description=description,
            statements=[
                *statements,
                *(network_interfaces() if network else []),
                *(self.database_statements(database_auth) if network else []),
                statement("Log", ["logs:CreateLogStream", "logs:PutLogEvents"], [group.log_group_arn]),
                statement("DeadLetter", ["sqs:SendMessage"], [self._queue.queue_arn]),
                use_key(self.key),
                tracing(),
            ],
        )
        return role.role, group, role.policy

    def environment(self, database_auth: DatabaseAuth | None = None) -> dict[str, str]:
        """What every function is told by its environment; `aurora_backup.settings` reads it."""
        auth = database_auth or self._auth
        if auth not in self._environments:  # each name and ARN is a call to CDK's side
            self._environments[auth] = self._environment(auth)
        return dict(self._environments[auth])

    def _environment(self, auth: DatabaseAuth) -> dict[str, str]:
        target = self.target
        login = (
            {"DB_AUTH": "secret", "DB_SECRET_ARN": target.secret.secret_arn}
            if target.secret and auth == "secret"
            else {"DB_AUTH": "iam", "DB_USER": ROLE}
        )
        return {
            "BACKUP_BUCKET": self.bucket.bucket_name,
            "BACKUP_KEY_ARN": self.key.key_arn,
            "OWNER": self.owner,
            "CLUSTER_ID": target.cluster.cluster_identifier,
            "CLUSTER_RESOURCE_ID": target.resource_id,
            **login,
            **self.policy.environment(),
        }

    def database_statements(self, database_auth: DatabaseAuth | None = None) -> list[Statement]:
        """What logging in to PostgreSQL needs."""
        secret = self.target.secret
        if secret and (database_auth or self._auth) == "secret":
            # One imported by its name has six characters more, which only Secrets Manager knows.
            arn = secret.secret_full_arn or f"{secret.secret_arn}-??????"
            read = [statement("ReadSecret", ["secretsmanager:GetSecretValue"], [arn])]
            if (key := secret.encryption_key) and key is not self.key:
                read.append(statement("DecryptSecret", ["kms:Decrypt"], [key.key_arn]))
            return read
        user = Stack.of(self).format_arn(
            service="rds-db",
            resource="dbuser",
            resource_name=f"{self.target.resource_id}/{ROLE}",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        return [statement("ConnectByIam", ["rds-db:connect"], [user])]
