"""LongRunningDump: where a dump runs that Lambda's fifteen minutes do not hold. CodeBuild, by ADR 8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Aws, Duration, RemovalPolicy, Stack
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from cdk_aurora_backup.assets import code_directory, postgres_directory
from cdk_aurora_backup.permissions import ServiceRole, Statement, acknowledge, statement, use_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdk_aurora_backup.functions import BackupFunctions, DatabaseNetwork

_LIMIT = Duration.hours(8)  # CodeBuild's own
_COMMANDS = (
    'mkdir -p "$TMPDIR" code postgres',
    'aws s3 cp --only-show-errors "$CODE_ASSET" code.zip',
    'aws s3 cp --only-show-errors "$POSTGRES_ASSET" postgres.zip',
    "unzip -q code.zip -d code && unzip -q postgres.zip -d postgres && chmod +x postgres/bin/*",
    'export PATH="$PWD/postgres/bin:$PATH" PYTHONPATH="$PWD/code" && python3 -m aurora_backup.cli engine --json',
)


class LongRunningDump(Construct):
    """A CodeBuild project that runs the dump function's own code and clients, with its environment and no deadline.

    It lives in the subnets of the functions, without a public address, and its role may do what the dump and verify
    functions may. CodeBuild pulls its image outside the VPC, so no NAT and no registry endpoint is needed; its log
    goes through a CloudWatch Logs endpoint, which `DatabaseNetwork` makes.

    environment, statements: the dump function's own.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: BackupFunctions,
        network: DatabaseNetwork,
        environment: Mapping[str, str],
        statements: Sequence[Statement],
    ) -> None:
        super().__init__(scope, construct_id)
        code = assets.Asset(self, "Code", path=str(code_directory(functions.root_certificates)))
        postgres = assets.Asset(self, "Postgres", path=str(postgres_directory(functions.architecture.name)))
        group = logs.LogGroup(
            self,
            "Logs",
            encryption_key=functions.key,
            retention=logs.RetentionDays.ONE_YEAR,
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = ServiceRole(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("codebuild.amazonaws.com"),
            description="Dumps that take longer than a function may",
            statements=[
                *statements,
                *self._network_statements(network),
                statement(
                    "ReadAssets",
                    ["s3:GetObject"],
                    [code.bucket.arn_for_objects(a.s3_object_key) for a in (code, postgres)],
                ),
                statement("Log", ["logs:CreateLogStream", "logs:PutLogEvents"], [group.log_group_arn]),
                use_key(functions.key),
            ],
        )
        arm = functions.architecture == lambda_.Architecture.ARM_64
        self._project = codebuild.Project(
            self,
            "Project",
            description="Dumps that take longer than a function may",
            role=role.role,
            encryption_key=functions.key,
            environment=codebuild.BuildEnvironment(
                build_image=codebuild.LinuxArmBuildImage.AMAZON_LINUX_2023_STANDARD_4_0
                if arm
                else codebuild.LinuxBuildImage.AMAZON_LINUX_2023_6,
                compute_type=codebuild.ComputeType.LARGE,
            ),
            environment_variables={
                name: codebuild.BuildEnvironmentVariable(value=value)
                for name, value in {
                    **environment,
                    "CODE_ASSET": code.s3_object_url,
                    "POSTGRES_ASSET": postgres.s3_object_url,
                    "TMPDIR": "/tmp/aurora-backup",  # noqa: S108  CodeBuild's own scratch space
                }.items()
            },
            build_spec=codebuild.BuildSpec.from_object(
                {"version": "0.2", "env": {"shell": "bash"}, "phases": {"build": {"commands": list(_COMMANDS)}}}
            ),
            logging=codebuild.LoggingOptions(cloud_watch=codebuild.CloudWatchLoggingOptions(log_group=group)),
            timeout=_LIMIT,
        )
        self._project.node.add_dependency(role.policy)
        self._join(network)
        acknowledge(
            self._project,
            "CodeBuildProjectSourceRepoUrl",
            "The project has no source repository: it runs assets of this stack.",
            ["hipaa", "pci"],
        )
        network.reach(
            "BackupLogs",
            "logs",
            ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
            "The long-running dump writes its log",
        )

    @property
    def project(self) -> codebuild.Project:
        """The project."""
        return self._project

    @property
    def limit(self) -> Duration:
        """The longest that a dump may take here."""
        return _LIMIT

    @staticmethod
    def start_statements(project: codebuild.IProject) -> list[Statement]:
        """What a state machine needs to start a build and wait for it.

        It may not bring commands of its own, which would run with the database's password: CodeBuild's condition key
        tells whether a call carries `buildspecOverride`, and nothing of what is in it.
        """
        rule = f"arn:{Aws.PARTITION}:events:{Aws.REGION}:{Aws.ACCOUNT_ID}:rule/StepFunctionsGetEventForCodeBuildRule"
        builds = ["codebuild:StartBuild", "codebuild:StopBuild", "codebuild:BatchGetBuilds"]
        return [
            statement("RunBuild", builds, [project.project_arn]),
            Statement(
                sid="RunNoOtherCommands",
                actions=["codebuild:StartBuild"],
                resources=[project.project_arn],
                conditions={"Null": {"codebuild:source.buildspec": "false"}},
                deny=True,
            ),
            statement("WaitForBuild", ["events:PutTargets", "events:PutRule", "events:DescribeRule"], [rule]),
        ]

    def _join(self, network: DatabaseNetwork) -> None:
        # By hand: with `vpc=` CDK would give the role an inline policy, which the compliance packs refuse.
        resource = self._project.node.default_child
        if not isinstance(resource, codebuild.CfnProject):
            raise TypeError(f"the project's resource must be a CfnProject, got {resource!r}")
        resource.vpc_config = codebuild.CfnProject.VpcConfigProperty(
            vpc_id=network.vpc.vpc_id,
            subnets=network.subnet_ids,
            security_group_ids=[network.security_group.security_group_id],
        )

    def _network_statements(self, network: DatabaseNetwork) -> list[Statement]:
        describe = ["DhcpOptions", "NetworkInterfaces", "Subnets", "SecurityGroups", "Vpcs"]
        stack = Stack.of(self)
        subnets = [stack.format_arn(service="ec2", resource="subnet", resource_name=s) for s in network.subnet_ids]
        return [
            statement(
                "JoinVpc",
                [
                    *(f"ec2:Describe{name}" for name in describe),
                    "ec2:CreateNetworkInterface",
                    "ec2:DeleteNetworkInterface",
                ],
                ["*"],
                wildcard="EC2 names no resource for the network interfaces that CodeBuild makes in a VPC.",
            ),
            statement(
                "UseInterface",
                ["ec2:CreateNetworkInterfacePermission"],
                [stack.format_arn(service="ec2", resource="network-interface", resource_name="*")],
                {
                    "StringEquals": {
                        "ec2:AuthorizedService": "codebuild.amazonaws.com",
                        "ec2:Subnet": subnets,
                    }
                },
                wildcard="The interface does not exist yet; the subnet and the service are fixed by the condition.",
            ),
        ]
