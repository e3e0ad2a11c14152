"""Policies of keys, buckets and vaults: only what certainly holds is concluded."""

from __future__ import annotations

import pytest

from aurora_backup.access_documents import DocumentError, exceptions_to_denial, lets_in, refuses_plain_http

MINE, OTHER = "1" * 12, "2" * 12
ROLE = f"arn:aws:iam::{MINE}:role/break-glass"
KEY = f"arn:aws:kms:eu-west-1:{MINE}:key/backup"
DELETE = ("kms:ScheduleKeyDeletion", "kms:DisableKey")


def deny(**change):
    return {"Effect": "Deny", "Principal": "*", "Action": list(DELETE), "Resource": "*", **change}


def of(*statements):
    return {"Statement": list(statements)}


BREAK_GLASS = {"ArnNotEquals": {"aws:PrincipalArn": [ROLE]}}


@pytest.mark.parametrize(
    ("statement", "spared"),
    [
        (deny(), []),
        (deny(Principal={"AWS": "*"}), []),
        (deny(Action="kms:*"), []),
        (deny(Action=["KMS:schedulekeydeletion", "kms:Disable*"]), []),
        (deny(Condition=BREAK_GLASS), [ROLE]),
        (deny(Condition={"StringNotLike": {"aws:principalarn": ROLE}}), [ROLE]),
        (deny(Resource=[KEY, "arn:x"]), []),
        (deny(Resource=f"arn:aws:kms:*:{MINE}:key/*"), []),
        # Not certain, so no denial:
        (deny(Action=["kms:ScheduleKeyDeletion"]), None),
        (deny(Principal={"AWS": f"arn:aws:iam::{MINE}:root"}), None),
        (deny(Resource="arn:aws:kms:eu-west-1:999988887777:key/other"), None),
        (deny(Resource=f"{KEY}-of-another"), None),
        (deny(Condition={"ArnNotEquals": {"aws:PrincipalArn": "*"}}), None),
        (deny(Condition={"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:*"}}), None),
        (deny(Condition={"ArnNotLike": {"aws:PrincipalArn": [ROLE, f"arn:aws:iam::{MINE}:role/*"]}}), None),
        (deny(Condition={"ArnNotLike": {"aws:PrincipalArn": f"arn:aws:iam::{MINE}:role/break-glas?"}}), None),
        (deny(Condition={"StringNotEquals": {"aws:PrincipalArn": "${aws:PrincipalArn}"}}), None),
        (deny(Condition={"Bool": {"aws:MultiFactorAuthPresent": "false"}}), None),
        (deny(Condition={**BREAK_GLASS, "Bool": {"x": "y"}}), None),
        (deny(Condition={"ArnNotEquals": {"aws:PrincipalArn": ROLE, "aws:SourceIp": "x"}}), None),
        ({k: v for k, v in deny(NotAction="kms:Decrypt").items() if k != "Action"}, None),
        ({**deny(), "Effect": "Allow"}, None),
    ],
)
def test_a_denial_counts_only_when_it_certainly_holds_for_everybody_else(statement, spared):
    assert exceptions_to_denial(of(statement), DELETE, KEY) == spared


def test_two_statements_spare_only_whom_both_spare():
    other = {"ArnNotEquals": {"aws:PrincipalArn": [ROLE, "arn:x"]}}
    assert exceptions_to_denial(of(deny(Condition=BREAK_GLASS), deny(Condition=other)), DELETE, KEY) == [ROLE]
    assert exceptions_to_denial(None, DELETE, KEY) is None


def allow(principal, **condition):
    return {"Effect": "Allow", "Principal": principal, "Action": "s3:*", "Resource": "*", "Condition": condition}


@pytest.mark.parametrize(
    ("statement", "outside"),
    [
        (allow("*"), ["*"]),
        (allow({"AWS": "*"}, Bool={"aws:SecureTransport": "true"}), ["*"]),
        (allow({"AWS": "*"}, StringEquals={"aws:SourceAccount": MINE}), []),
        (allow({"AWS": "*"}, StringEquals={"aws:SourceAccount": OTHER}), ["*"]),
        (allow({"AWS": "*"}, StringEquals={"aws:PrincipalOrgID": "o-ours"}), []),
        (allow({"AWS": "*"}, StringEquals={"aws:PrincipalOrgID": ["o-ours", "o-theirs"]}), ["*"]),
        (allow({"AWS": "*"}, StringLike={"aws:PrincipalOrgID": "o-*"}), ["*"]),
        (allow({"AWS": "*"}, StringLike={"aws:PrincipalOrgID": "*"}), ["*"]),
        (allow({"AWS": MINE}), []),
        (allow({"AWS": f"arn:aws:iam::{MINE}:root"}), []),
        (allow({"AWS": [OTHER, f"arn:aws:iam::{OTHER}:role/x"]}), [OTHER, f"arn:aws:iam::{OTHER}:role/x"]),
        (allow({"Service": "backup.amazonaws.com"}), []),
        ({"Effect": "Allow", "NotPrincipal": {"AWS": MINE}, "Action": "*", "Resource": "*"}, ["*"]),
        (deny(), []),
    ],
)
def test_whoever_is_let_in_from_outside_is_named(statement, outside):
    assert lets_in(of(statement), MINE, ["o-ours"]) == outside


def test_friends_are_let_in():
    assert lets_in(of(allow({"AWS": OTHER})), MINE, [OTHER]) == []
    assert lets_in(None, MINE) == []


BUCKET = "arn:aws:s3:::backups"
WHOLE = [BUCKET, f"{BUCKET}/*"]
TLS = {"Bool": {"aws:SecureTransport": "false"}}


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        (deny(Action="s3:*", Condition=TLS), True),
        (deny(Action="s3:*", Condition=TLS, Resource=WHOLE), True),
        (deny(Action="s3:*", Condition=TLS, Resource=f"{BUCKET}/*"), False),
        (deny(Action="s3:*", Condition=TLS, Resource=[BUCKET, f"{BUCKET}/public/*"]), False),
        (deny(Action="s3:*", Condition=TLS, Resource="arn:aws:s3:::other/*"), False),
        (deny(Action="s3:GetObject", Condition=TLS), False),
        (deny(Action="s3:*"), False),
        (deny(Action="s3:*", Principal={"AWS": MINE}, Condition=TLS), False),
        (deny(Action="s3:*", Condition={**TLS, "StringEquals": {"x": "y"}}), False),
    ],
)
def test_plain_http_is_refused_only_when_it_is_denied_to_everybody(statement, refused):
    assert refuses_plain_http(of(statement), BUCKET) is refused


@pytest.mark.parametrize(
    "document",
    [
        [],
        "x",
        {},
        {"Statement": "x"},
        of({"Effect": "Maybe"}),
        of({"Effect": "Deny"}),
        of(deny(Principal=[])),
        of(deny(Action=[1])),
    ],
)
def test_a_malformed_document_is_an_error_and_never_an_answer(document):
    with pytest.raises(DocumentError):
        exceptions_to_denial(document, DELETE, KEY)
