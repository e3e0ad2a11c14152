"""Who can delete, from identity policies: rather too many than too few, and only for certain too few."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_backup.access_documents import DocumentError, meet
from aurora_backup.compliance_principals import answers, targets, who_may

ACCOUNT, REGION, BUCKET = "1" * 12, "eu-west-1", "backups"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/k"
TARGETS = targets(key_arn=KEY, bucket=BUCKET, cluster_id="clinic")
ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
ROOT, BREAK_GLASS = f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{ACCOUNT}:role/break-glass"


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action, resource="*", **more):
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


def document(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def managed(arn, *statements):
    old = {"VersionId": "v1", "IsDefaultVersion": False, "Document": document(allow("*"))}
    return {
        "Arn": arn,
        "PolicyVersionList": [old, {"VersionId": "v2", "IsDefaultVersion": True, "Document": document(*statements)}],
    }


def role(name, *statements, attached=(), boundary=None):
    return {
        "Arn": f"arn:aws:iam::{ACCOUNT}:role/{name}",
        "RolePolicyList": [{"PolicyName": "p", "PolicyDocument": document(*statements)}] if statements else [],
        "AttachedManagedPolicies": [{"PolicyArn": arn} for arn in attached],
        **({"PermissionsBoundary": {"PermissionsBoundaryArn": boundary}} if boundary else {}),
    }


def may(*statements, policies=(), **more):
    found = who_may([{"RoleDetailList": [role("x", *statements, **more)], "Policies": list(policies)}], TARGETS)
    return found["principals"][0]["may"] if found["principals"] else {}


@pytest.mark.parametrize(
    ("statements", "able"),
    [
        ([allow("*")], dict.fromkeys([t.name for t in TARGETS], "always")),
        ([allow("s3:Get*")], {}),
        ([allow("S3:deleteobjectVERSION")], {"sets": "always"}),
        ([allow("s3:DeleteObject?ersion")], {"sets": "always"}),
        ([allow("s3:DeleteObject*", f"arn:aws:s3:::{BUCKET}/logical-backups/*")], {"sets": "always"}),
        ([allow("s3:DeleteObjectVersion", "arn:aws:s3:::another/*")], {}),
        ([allow("s3:PutLifecycleConfiguration", f"arn:aws:s3:::{BUCKET}")], {"sets": "always"}),
        ([allow("s3:PutLifecycleConfiguration", f"arn:aws:s3:::{BUCKET}/*")], {}),
        ([allow("rds:DeleteDBCluster", "arn:aws:rds:*:*:cluster:clinic-${aws:username}")], {}),
        ([allow("rds:DeleteDBCluster", "arn:aws:rds:*:*:cluster:${aws:PrincipalTag/team}")], {"cluster": "always"}),
        ([allow("kms:ScheduleKeyDeletion", KEY)], {"key": "always"}),
        ([allow("kms:DisableKey", KEY.replace("/k", "/other"))], {}),
        ([allow("kms:*", KEY, Condition={"Bool": {"aws:MultiFactorAuthPresent": "true"}})], {"key": "sometimes"}),
        ([allow("kms:*", KEY, Condition={"Bool": {}}), allow("kms:*", KEY)], {"key": "always"}),
        ([{"Effect": "Allow", "NotAction": ["s3:*", "kms:*", "backup:*"], "Resource": "*"}],
         {"snapshots": "always", "cluster": "always"}),
        ([{"Effect": "Allow", "Action": "rds:*", "NotResource": "arn:aws:rds:*:*:cluster:*"}], {"snapshots": "always"}),
        # Denials count when they certainly hold for all of it.
        ([allow("rds:*"), deny("rds:Delete*")], {}),
        ([allow("rds:*"), deny("rds:Delete*", "arn:aws:rds:*:*:cluster:*")], {"snapshots": "always"}),
        ([allow("rds:*"), deny("rds:Delete*", "arn:aws:rds:*:*:cluster-snapshot:old-*")],
         {"snapshots": "always", "cluster": "always"}),
        ([allow("rds:*"), deny("rds:Delete*", Condition={"Bool": {"aws:MultiFactorAuthPresent": "false"}})],
         {"snapshots": "always", "cluster": "always"}),
        ([allow("rds:*"), {"Effect": "Deny", "NotAction": "rds:Describe*", "Resource": "*"}], {}),
        ([allow("rds:*"), {"Effect": "Deny", "Action": "rds:*", "NotResource": TARGETS[-1].ways[0][1]}],
         {"cluster": "always"}),
    ],
)  # fmt: skip
def test_what_a_principal_can_delete_follows_from_its_policies(statements, able):
    assert may(*statements) == able


def test_attached_policies_count_in_their_default_version_and_those_not_shown_are_named():
    mine = f"arn:aws:iam::{ACCOUNT}:policy/mine"
    assert may(attached=[mine], policies=[managed(mine, allow("kms:DisableKey"))]) == {"key": "always"}
    found = who_may([{"RoleDetailList": [role("x", attached=[ADMINISTRATOR])], "Policies": []}], TARGETS)
    assert found == {"principals": [], "unread": [ADMINISTRATOR]}


def test_a_boundary_bounds_and_one_that_is_not_shown_bounds_nothing():
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
    bounded = {"boundary": boundary, "policies": [managed(boundary, allow("s3:*"), allow("rds:*", Condition={"x": 1}))]}
    assert may(allow("*"), **bounded) == {
        "snapshots": "sometimes",
        "sets": "always",
        "governance": "always",
        "cluster": "sometimes",
    }
    assert len(may(allow("*"), boundary=boundary)) == len(TARGETS)


def test_a_user_has_its_own_policies_and_its_groups_also_from_another_page():
    user = {"Arn": f"arn:aws:iam::{ACCOUNT}:user/u", "GroupList": ["ops"], "UserPolicyList": []}
    group = {"GroupName": "ops", "GroupPolicyList": [{"PolicyDocument": document(allow("rds:DeleteDBCluster"))}]}
    found = who_may([{"UserDetailList": [user]}, {"GroupDetailList": [group]}], TARGETS)
    assert found["principals"] == [{"arn": user["Arn"], "may": {"cluster": "always"}}]


@pytest.mark.parametrize("broken", ["text", {"Statement": [{"Effect": "Maybe"}]}, document({"Effect": "Allow"})])
def test_a_malformed_policy_is_an_error_and_never_an_answer(broken):
    one = {"Arn": "a", "RolePolicyList": [{"PolicyDocument": broken}]}
    with pytest.raises(DocumentError):
        who_may([{"RoleDetailList": [one]}], TARGETS)


PATTERNS = st.text("ab*?", max_size=6)


@given(one=PATTERNS, other=PATTERNS, text=st.text("ab", max_size=5))
def test_patterns_meet_wherever_a_text_matches_both(one, other, text):
    def matches(pattern):
        return re.fullmatch(pattern.replace("*", ".*").replace("?", "."), text)

    if matches(one) and matches(other):
        assert meet(one, other)
    assert meet(one, other) == meet(other, one)
    if "*" not in one + other and "?" not in one + other:
        assert meet(one, other) == (one == other)


# --- Resource policies and identity policies together ----------------------------------------------------------------

ADMIN, SWEEP = f"arn:aws:iam::{ACCOUNT}:role/admin", f"arn:aws:iam::{ACCOUNT}:role/sweep"
ELSEWHERE = f"arn:aws:iam::{'2' * 12}:role/x"
IDENTITIES = {
    "principals": [
        {"arn": ADMIN, "may": {t.name: "always" for t in TARGETS}},
        {"arn": SWEEP, "may": {"snapshots": "sometimes"}},
    ],
    "unread": [],
}


def spare(*names, actions=("kms:ScheduleKeyDeletion", "kms:DisableKey"), **more):
    condition = {"ArnNotLike": {"aws:PrincipalArn": list(names)}}
    return document({"Principal": "*", "Condition": condition, **deny(list(actions)), **more})


def who(target, guards, identities=IDENTITIES):
    wanted = [t for t in TARGETS if t.name == target]
    (answer,) = answers(wanted, guards, identities, ACCOUNT)
    return answer


@pytest.mark.parametrize(
    ("spared", "shown"),
    [
        ([ADMIN], {ADMIN: "always"}),
        ([SWEEP], {}),  # spared, and its own policies do not let it
        ([f"arn:aws:iam::{ACCOUNT}:role/*"], {ADMIN: "always"}),
        ([ROOT], {ROOT: "always"}),
        ([ELSEWHERE], {ELSEWHERE: "always"}),
    ],
)
def test_a_denial_leaves_those_that_it_spares_and_that_are_allowed(spared, shown):
    assert who("key", {"key-policy": spare(*spared)}).who == shown


def test_without_a_denial_it_is_whoever_is_allowed():
    assert who("key", {"key-policy": document()}).who == {ADMIN: "always"}
    assert who("snapshots", {}).who == {ADMIN: "always", SWEEP: "sometimes"}
    half = spare(BREAK_GLASS, actions=["kms:DisableKey"])
    assert who("key", {"key-policy": half}).who == {ADMIN: "always"}  # the key can still be deleted


def test_a_denial_on_some_objects_only_is_no_denial():
    actions = ["s3:DeleteObjectVersion", "s3:PutLifecycleConfiguration"]
    everything = spare(BREAK_GLASS, actions=actions)
    assert who("sets", {"bucket-policy": everything}).who == {}
    only = spare(BREAK_GLASS, actions=actions, Resource=f"arn:aws:s3:::{BUCKET}/compliance-backups/*")
    assert who("sets", {"bucket-policy": only}).who == {ADMIN: "always"}


def test_what_could_not_be_read_is_said():
    answer = who("key", {}, None)
    assert (answer.who, answer.rests_on) == (None, "key policy could not be read; identity policies could not be read")
    answer = who("key", {"key-policy": spare(BREAK_GLASS)}, None)
    assert answer.who == {BREAK_GLASS: "always"}
    answer = who("snapshots", {}, {**IDENTITIES, "unread": [ADMINISTRATOR]})
    assert answer.rests_on == f"identity policies; not shown to us: {ADMINISTRATOR}"
    assert who("key", {"key-policy": "text"}).rests_on.startswith("key policy could not be read")
