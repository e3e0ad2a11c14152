"""What is refused at synth, by field, rule and value; what is only warned of; what passes as not known yet."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager

from aurora_backup import settings
from aurora_backup.policy import AutomatedTier, PolicyError
from aurora_backup.settings import OWN_BUNDLE, default_root_certificate
from cdk_aurora_backup import ClusterDetails, Keep, ProtectedCluster, RetentionPolicy, SnapshotTier, SynthError, assets
from cdk_aurora_backup.checks import check_cluster, check_databases, check_identifier, known, warn_about_quota
from cdk_aurora_backup.functions import BackupFunctions
from cdk_aurora_backup.permissions import statement
from tests.synth.synthesis import (
    ACCOUNT,
    Synthesised,
    backed_up,
    imported_cluster,
    new_stack,
    some_clients,
    some_cluster,
    some_vpc,
)

HIPAA = RetentionPolicy.hipaa()


@pytest.fixture(scope="module")
def stack():
    return new_stack()


@pytest.fixture(scope="module")
def vpc(stack):
    return some_vpc(stack)


@pytest.mark.parametrize("name", ["1clinic", "-clinic", "clinic-", "cli--nic", "cli_nic", "klinik.ä", "c" * 64, ""])
def test_a_name_that_breaks_an_aws_rule_is_refused(name):
    with pytest.raises(SynthError, match=r"cluster must be 1-63 letters, digits and hyphens.*got "):
        check_identifier("cluster", name)


@pytest.mark.parametrize("name", ["c", "clinic", "Clinic-2", "c" * 63])
def test_a_name_that_aws_takes_is_given_back(name):
    assert check_identifier("cluster", name) == name


def test_an_unresolved_token_passes_on_purpose_because_it_is_not_known_yet(stack, vpc):
    name = cdk.CfnParameter(stack, "Name").value_as_string
    days = cdk.CfnParameter(stack, "Days", type="Number").value_as_number
    assert not known(name)
    assert check_identifier("cluster", name) == name
    cluster = some_cluster(stack, vpc, "Token")
    resource = cluster.node.default_child
    resource.backup_retention_period = days
    check_cluster(cluster, HIPAA)


def test_an_unencrypted_cluster_of_the_app_is_refused(stack, vpc):
    for n, changes in enumerate(({"storage_encrypted": False}, {"storage_encrypted": None})):
        cluster = some_cluster(stack, vpc, f"Plain{n}", **changes)
        with pytest.raises(SynthError, match=rf"cluster Mine/Plain{n}: StorageEncrypted must be true, got"):
            check_cluster(cluster, HIPAA)


def test_a_key_with_encryption_switched_off_is_refused_although_cdk_lets_it_pass(stack, vpc):
    cluster = some_cluster(stack, vpc, "Contradiction")
    resource = cluster.node.default_child
    resource.storage_encrypted, resource.kms_key_id = False, "alias/mine"
    with pytest.raises(SynthError, match="StorageEncrypted must be true, got False"):
        check_cluster(cluster, HIPAA)


def test_a_cluster_restored_from_a_snapshot_is_as_encrypted_as_the_snapshot(stack, vpc):
    cluster = rds.DatabaseClusterFromSnapshot(
        stack,
        "Restored",
        engine=rds.DatabaseClusterEngine.aurora_postgres(version=rds.AuroraPostgresEngineVersion.VER_16_6),
        snapshot_identifier="before",
        writer=rds.ClusterInstance.serverless_v2("writer"),
        vpc=vpc,
        vpc_subnets={"subnets": vpc.isolated_subnets},
        backup=rds.BackupProps(retention=cdk.Duration.days(35)),
    )
    check_cluster(cluster, HIPAA)


@pytest.mark.parametrize("days", [1, 7, 34])
def test_a_cluster_of_the_app_that_keeps_backups_for_less_than_the_policy_is_refused(stack, vpc, days):
    cluster = some_cluster(stack, vpc, f"Short{days}", backup=rds.BackupProps(retention=cdk.Duration.days(days)))
    with pytest.raises(SynthError, match=rf"BackupRetentionPeriod must be .* automated\.keep_days 35, got {days}"):
        check_cluster(cluster, HIPAA)


def test_a_cluster_that_says_nothing_keeps_one_day_and_is_refused(stack, vpc):
    with pytest.raises(SynthError, match=r"automated\.keep_days 35, got 1"):
        check_cluster(some_cluster(stack, vpc, "Silent", backup=None), HIPAA)


def test_a_cluster_that_keeps_as_long_as_the_policy_is_accepted(stack, vpc):
    check_cluster(some_cluster(stack, vpc, "Enough"), HIPAA)
    check_cluster(some_cluster(stack, vpc, "Dev", backup=None), RetentionPolicy.dev())


def test_aurora_backup_makes_the_check_itself(stack, vpc):
    short = some_cluster(stack, vpc, "Short", backup=None)
    with pytest.raises(SynthError, match="cluster Mine/Short: BackupRetentionPeriod"):
        backed_up(stack, "OfShort", cluster=short, vpc=vpc)


def test_an_imported_cluster_shows_nothing_at_synth_and_passes(stack):
    check_cluster(imported_cluster(stack, "Elsewhere").cluster, HIPAA)


@pytest.mark.parametrize("readers", [-1, 15])
def test_more_instances_than_aurora_has_are_refused(stack, vpc, readers):
    with pytest.raises(SynthError, match=rf"ProtectedCluster\.readers must be within 0-14, got {readers}"):
        ProtectedCluster(stack, f"Many{readers}", vpc=vpc, key=None, policy=HIPAA, readers=readers)


@pytest.mark.parametrize(("quota", "warned"), [(100, True), (108, True), (110, False), (1000, False)])
def test_snapshots_near_the_quota_are_a_warning_and_never_an_error(quota, warned):
    stack = new_stack()
    cdk.CfnResource(stack, "Something", type="AWS::SNS::Topic")
    warn_about_quota(stack, HIPAA, quota)
    template = Synthesised.of(stack)
    assert ("will hold 98 cluster snapshots" in template.said("warning")) is warned
    assert template.said("error") == ""


def test_a_policy_over_the_quota_still_synthesises():
    stack = new_stack()
    daily = SnapshotTier(schedule="cron(0 2 * * ? *)", keep=Keep.for_days(180))
    backed_up(stack, policy=RetentionPolicy(weekly=daily))
    template = Synthesised.of(stack)
    assert "will hold 180 cluster snapshots" in template.said("warning")
    assert template.said("error") == ""


@pytest.mark.parametrize("name", ["", "rdsadmin", "template1", "d" * 64, "ä" * 32])
def test_a_database_that_cannot_be_dumped_is_refused(name):
    with pytest.raises(SynthError, match=f"databases must be names of 1-63 bytes, and none of rdsadmin.*got '{name}'"):
        check_databases("databases", ["clinic", name])


def test_one_text_is_no_list_of_databases():
    with pytest.raises(SynthError, match="databases must be a list of names, got the text 'clinic'"):
        check_databases("databases", "clinic")


def test_a_database_may_have_any_other_name(stack):
    check_databases("databases", ["clinic", "Klinik ä", "d" * 63, cdk.CfnParameter(stack, "Db").value_as_string])


@pytest.mark.parametrize("name", ["1-bad name", "clinic-eu", "", "d" * 64])
def test_a_database_that_rds_would_not_make_is_refused(name):
    stack = new_stack()
    with pytest.raises(SynthError, match=f"database_name must be 1-63 letters, digits and underscores.*got '{name}'"):
        ProtectedCluster(stack, "Db", vpc=some_vpc(stack), key=kms.Key(stack, "Key"), policy=HIPAA, database_name=name)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"reserved_concurrency": 0}, "reserved_concurrency must be 1 or more, or None.*got 0"),
        ({"reserved_concurrency": -1}, "reserved_concurrency must be 1 or more, or None.*got -1"),
        ({"database_auth": "password"}, "database_auth must be 'iam' or 'secret', got 'password'"),
        ({"root_certificates": __file__}, "root_certificates must be the path of a PEM with certificates, got '.*py'"),
        ({"root_certificates": "/nowhere"}, "root_certificates must be the path of a PEM .*'/nowhere': .*No such file"),
    ],
)
def test_functions_that_could_not_run_are_refused(stack, given, told):
    with pytest.raises(SynthError, match=told):
        functions(stack, **given)


def test_an_environment_that_lambda_would_not_take_is_refused_and_what_is_unknown_counts_as_nothing():
    stack = new_stack()
    maker = functions(stack)
    unknown = cdk.CfnParameter(stack, "Told").value_as_string
    for name, told in (("Fits", f"{unknown}{'x' * 2000}"), ("TooLong", "ä" * 2000)):
        maker.add(stack, name, "heartbeat", description=name, environment={"TOLD": told})
    with pytest.raises(RuntimeError, match=r"environment of Mine/TooLong must be .* 4096 bytes.*: TOLD 4004, ") as said:
        Synthesised.of(stack)
    assert "Mine/Fits" not in str(said.value)


def test_a_cluster_that_nothing_would_match_or_reach_is_refused():
    stack = new_stack()
    with pytest.raises(SynthError, match="must be in lower case, as RDS keeps it, got 'Clinic-Prod'"):
        ClusterDetails(cluster=imported(stack, "Upper", "Clinic-Prod"), resource_id="cluster-ABC")
    alone = rds.DatabaseCluster.from_database_cluster_attributes(stack, "Alone", cluster_identifier="alone", port=5432)
    with pytest.raises(SynthError, match="Mine/Alone must have security_groups, got none"):
        ClusterDetails(cluster=alone, resource_id="cluster-ABC")


def imported(stack, construct_id, identifier):
    group = ec2.SecurityGroup.from_security_group_id(stack, f"{construct_id}Group", "sg-0123456789abcdef0")
    return rds.DatabaseCluster.from_database_cluster_attributes(
        stack, construct_id, cluster_identifier=identifier, port=5432, security_groups=[group]
    )


def test_a_key_by_its_alias_is_refused_and_a_secret_by_its_name_can_be_read():
    stack = new_stack()
    with pytest.raises(SynthError, match="key must be a key and not an alias"):
        BackupFunctions(
            stack, "Aliased", target=imported_cluster(stack), policy=HIPAA, bucket=s3.Bucket(stack, "Bucket"),
            key=kms.Alias.from_alias_name(stack, "Alias", "alias/clinic"),
        )  # fmt: skip
    secret = secretsmanager.Secret.from_secret_name_v2(stack, "Secret", "clinic")
    maker = functions(stack)
    maker.target = imported_cluster(stack, "Named", secret=secret)
    (read,) = maker.database_statements("secret")
    assert str(stack.resolve(read.resources[0])).count("secret:clinic-??????") == 1


def test_a_bucket_of_the_app_brings_its_key_and_no_other_is_taken_beside_it():
    stack = new_stack()
    mine = kms.Key(stack, "Mine")
    bucket = s3.Bucket(stack, "Bucket", encryption=s3.BucketEncryption.KMS, encryption_key=mine)
    found = backed_up(stack, bucket=bucket)
    assert stack.resolve(found.key.key_arn) == stack.resolve(mine.key_arn)
    with pytest.raises(SynthError, match=r"AuroraBackup\.key must be the key of the bucket that is given, .*Mine"):
        backed_up(
            stack,
            "Other",
            bucket=bucket,
            key=kms.Key(stack, "Theirs"),
            vpc=some_vpc(stack, "Vpc2"),
            cluster=imported_cluster(stack, "Second"),
            clients=some_clients(stack, "C2"),
        )


def test_a_server_newer_than_the_clients_is_refused_unless_clients_are_brought(stack):
    with pytest.raises(SynthError, match=r"engine_version must not be newer than the clients' PostgreSQL 17.*'18.1'"):
        functions(stack, version="18.1")
    functions(stack, version="18.1", clients=some_clients(stack, "NewerClients"))
    functions(stack, version="17.9")


def test_govcloud_needs_its_authorities_which_go_into_the_code(tmp_path, monkeypatch):
    pem = default_root_certificate("eu-west-1")
    for given, warned in ((None, True), (pem, False)):
        stack = new_stack(env=cdk.Environment(account=ACCOUNT, region="us-gov-west-1"))
        functions(stack, root_certificates=given)
        assert ("No function can verify the database's certificate" in Synthesised.of(stack).said("warning")) is warned
    monkeypatch.setattr(assets, "_DRIVER", ())
    monkeypatch.setattr(assets, "_SDK", ())
    code = assets.code_directory.__wrapped__(pem)
    assert (code / "aurora_backup" / OWN_BUNDLE).read_bytes() == Path(pem).read_bytes()
    monkeypatch.setattr(settings, "files", lambda _name: code / "aurora_backup")
    assert default_root_certificate("us-gov-west-1") == str(code / "aurora_backup" / OWN_BUNDLE)


def functions(stack, version=None, **given):
    details = imported_cluster(stack, f"Imported{len(stack.node.children)}", engine_version=version)
    key = kms.Key(stack, f"Key{len(stack.node.children)}")
    bucket = s3.Bucket(stack, f"Bucket{len(stack.node.children)}")
    name = f"Functions{len(stack.node.children)}"
    return BackupFunctions(stack, name, target=details, policy=HIPAA, bucket=bucket, key=key, **given)


def test_a_cluster_of_another_engine_is_refused():
    stack = new_stack()
    engine = rds.DatabaseClusterEngine.aurora_mysql(version=rds.AuroraMysqlEngineVersion.VER_3_08_0)
    with pytest.raises(SynthError, match="must be of the engine aurora-postgresql, got 'aurora-mysql'"):
        ClusterDetails.of(some_cluster(stack, some_vpc(stack), engine=engine))


def test_a_policy_with_a_token_is_refused_because_everything_is_derived_from_it():
    number, text = cdk.Token.as_number({"Ref": "Days"}), cdk.Token.as_string({"Ref": "Text"})
    for change in (
        lambda: AutomatedTier(keep_days=number),
        lambda: AutomatedTier(backup_window=text),
        lambda: AutomatedTier(maintenance_window=text),
        lambda: SnapshotTier(schedule=text, keep=Keep.for_days(1)),
    ):
        with pytest.raises(PolicyError, match="must be known at synth, because everything is derived from it"):
            change()


def test_a_function_under_another_s_role_gets_nothing_of_its_own():
    stack = new_stack()
    made = functions(stack)
    first = made.add(stack, "First", "verify", description="x")
    read = statement("Read", ["s3:GetObject"], ["arn:aws:s3:::a/b"])
    with pytest.raises(SynthError, match="Mine/Second: a function under the role of Mine/First takes it as it is"):
        made.add(stack, "Second", "verify", description="x", under=first, statements=[read])
