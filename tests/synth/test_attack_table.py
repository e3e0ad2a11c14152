"""What a stolen administrator can do, evaluated over the synthesised policies, and the document that says so."""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import pytest

from tests.synth import attacks, hardened

BEGIN, END = "<!-- evaluated: {} -->\n", "<!-- end: {} -->"
SECOND = ("second account", "strongest")


@pytest.fixture(scope="module")
def apps():
    return {name: hardened.synthesised(name) for name in hardened.OPTION_SETS}


@pytest.fixture(scope="module")
def results(apps):
    return attacks.table(apps)


@pytest.fixture(scope="module")
def from_within(apps):
    return attacks.table({name: apps[name] for name in SECOND}, by=hardened.KEEPER)


def outcome(results, option, attack):
    return next(o for o in results[option] if o.attack == attack)


def changed(app, kind, change):
    """The app with one kind of resource changed, as if the construct had been written otherwise."""
    template = copy.deepcopy(app.protected.template)
    for body in template["Resources"].values():
        if body["Type"] == kind:
            change(body["Properties"])
    return replace(app, protected=replace(app.protected, template=template))


@pytest.mark.parametrize(
    ("section", "fixture", "copies"),
    [("protected account", "results", ""), ("second account", "from_within", "second")],
)
def test_the_threat_models_tables_are_what_the_evaluation_says(request, apps, section, fixture, copies):
    found = request.getfixturevalue(fixture)
    wanted = attacks.document(found, {name: apps[name] for name in found}, copies=copies)
    text = attacks.DOCUMENT.read_text()
    before, rest = text.split(BEGIN.format(section))
    written, after = rest.split(END.format(section))
    if os.environ.get("UPDATE_GOLDEN"):
        attacks.DOCUMENT.write_text(before + BEGIN.format(section) + wanted + END.format(section) + after)
        return
    assert written == wanted, "docs/threat-model.md is out of date: UPDATE_GOLDEN=1 writes it anew"


def test_against_all_attacks_together_the_strongest_set_keeps_a_readable_copy_of_each_lockable_tier(results, apps):
    left = attacks.survivors(results["strongest"], apps["strongest"])
    assert left["weekly and monthly, second account"]
    assert left["logical sets, second account"]
    assert left["evidence, second account"]


def test_what_cannot_be_locked_is_said_to_be_lost_under_every_option(results, apps):
    for option, outcomes in results.items():
        left = attacks.survivors(outcomes, apps[option])
        assert not left["point-in-time recovery"]
        assert not left["on-demand snapshots"]


def test_without_a_second_account_no_copy_survives_because_an_administrator_can_end_the_key(results, apps):
    for option in ("plain", "default", "compliance lock"):
        assert not any(attacks.survivors(results[option], apps[option]).values())


def test_the_second_accounts_own_administrator_cannot_end_what_is_air_gapped(from_within, apps):
    assert attacks.survivors(from_within["strongest"], apps["strongest"])["weekly and monthly, second account"]
    assert not attacks.survivors(from_within["second account"], apps["second account"])[
        "weekly and monthly, second account"
    ]


def test_every_attack_that_the_issue_names_is_in_the_table(results):
    named = {
        "rds:DeleteDBClusterSnapshot", "backup:DeleteRecoveryPoint", "rds:ModifyDBClusterSnapshotAttribute",
        "s3:PutLifecycleConfiguration", "s3:BypassGovernanceRetention", "s3:DeleteObjectVersion",
        "kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:PutKeyPolicy", "backup:DeleteBackupVault",
        "backup:DeleteBackupVaultLockConfiguration", "backup:PutBackupVaultAccessPolicy", "rds:ModifyDBCluster",
        "events:DeleteRule", "events:DisableRule", "cloudwatch:DeleteAlarms", "lambda:UpdateFunctionCode",
    }  # fmt: skip
    assert named <= {attack["action"] for attack in attacks.DATA["attacks"]}


@pytest.mark.parametrize("option", ["default", "compliance lock", "second account", "strongest"])
def test_every_possible_call_that_cloudtrail_records_in_the_region_is_alarmed(results, option):
    told = {attack["name"] for attack in attacks.DATA["attacks"] if attacks.told_in(attack, hardened.REGION)}
    silent = [o.attack for o in results[option] if o.verdict == "possible" and o.attack in told and not o.alarmed]
    assert silent == []


def test_in_iams_own_region_a_change_of_roles_is_alarmed_too(apps):
    app = apps["compliance lock"]
    moved = replace(app, protected=replace(app.protected, region="us-east-1"))
    names = {attack["name"] for attack in attacks.DATA["attacks"] if attack.get("region")}
    found = attacks.table({"moved": moved})["moved"]
    assert [o.attack for o in found if o.attack in names and not o.alarmed] == []
    assert len(names) == 3


def test_a_rule_that_is_deleted_is_told_of_by_another(results):
    assert outcome(results, "default", "DeleteRule on our own monitors").alarmed


# The controls: each protection taken away must show in the table.


def test_control_without_its_access_policy_the_vaults_lock_can_be_removed_and_everything_deleted(apps):
    weak = changed(apps["default"], "AWS::Backup::BackupVault", lambda p: p.pop("AccessPolicy"))
    found = attacks.table({"weak": weak})["weak"]
    deleted = next(o for o in found if o.attack == "DeleteRecoveryPoint")
    assert (deleted.verdict, deleted.why, deleted.afterwards) == ("denied", "vault lock", "possible")


def test_control_without_object_lock_the_second_accounts_administrator_deletes_versions(apps):
    app = apps["strongest"]
    template = copy.deepcopy(app.keeper.template)
    for body in template["Resources"].values():
        if body["Type"] == "AWS::S3::Bucket":
            body["Properties"].pop("ObjectLockConfiguration", None)
    weak = replace(app, keeper=replace(app.keeper, template=template))
    found = attacks.table({"weak": weak}, by=hardened.KEEPER)["weak"]
    assert next(o for o in found if o.attack.startswith("DeleteObjectVersion")).verdict == "possible"


def test_control_a_second_account_that_lets_the_first_in_is_not_one(apps):
    app = apps["strongest"]
    template = copy.deepcopy(app.keeper.template)
    open_door = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}
    for body in template["Resources"].values():
        if body["Type"] == "AWS::S3::BucketPolicy":
            body["Properties"]["PolicyDocument"]["Statement"].append(open_door)
        if body["Type"] == "AWS::S3::Bucket":
            body["Properties"].pop("ObjectLockConfiguration", None)
    weak = replace(app, keeper=replace(app.keeper, template=template))
    assert not attacks.survivors(attacks.table({"weak": weak})["weak"], weak)["logical sets, second account"]


def test_control_a_replica_that_expires_what_is_overwritten_loses_its_sets_to_the_first_account(apps):
    app = apps["second account"]
    template = copy.deepcopy(app.keeper.template)
    for body in template["Resources"].values():
        for rule in (
            body["Properties"].get("LifecycleConfiguration", {}).get("Rules", []) if "Bucket" in body["Type"] else ()
        ):
            rule.setdefault("NoncurrentVersionExpiration", {})["NoncurrentDays"] = 30
    weak = replace(app, keeper=replace(app.keeper, template=template))
    left = attacks.survivors(attacks.table({"weak": weak})["weak"], weak)
    assert not left["logical sets, second account"]
    assert not left["evidence, second account"]


def test_evidence_under_governance_is_lost_to_the_second_accounts_administrator_and_under_compliance_is_not(apps):
    attack = "BypassGovernanceRetention of evidence in the second account"
    verdicts = []
    for mode in ("GOVERNANCE", "COMPLIANCE"):

        def locked(properties, mode=mode):
            if "EVIDENCE_LOCK" in properties.get("Environment", {}).get("Variables", {}):
                properties["Environment"]["Variables"]["EVIDENCE_LOCK"] = mode

        app = changed(apps["second account"], "AWS::Lambda::Function", locked)
        verdicts.append(outcome(attacks.table({"x": app}, by=hardened.KEEPER), "x", attack).verdict)
    assert verdicts == ["possible", "denied"]


def test_control_without_the_rule_a_call_is_possible_in_silence(apps):
    def deaf(properties):
        properties["EventPattern"] = {"source": ["aws.nothing"]}

    quiet = changed(apps["default"], "AWS::Events::Rule", deaf)
    assert not any(o.alarmed for o in attacks.table({"quiet": quiet})["quiet"])
