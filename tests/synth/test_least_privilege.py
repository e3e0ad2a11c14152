"""Every role has what its code calls, and nothing that neither a call nor a reason explains.

The calls are read from the code (`calls.py`), their IAM actions and the reasons from the reviewed table
(tests/data/operations.json), the policies from the synthesised template with every option on. The check fails when any
of the three changes without the others.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass

import pytest

from tests.synth import calls, hardened
from tests.synth.synthesis import ROOT

PATH = ROOT / "tests/data/operations.json"
TABLE = json.loads(PATH.read_text())
PREFIX = "aurora_backup.handlers."


@dataclass(frozen=True)
class Granted:
    """A role of ours: which policy, for which handler (None: a service assumes it), its actions by statement."""

    policy: str
    handler: str | None
    statements: dict[str, set[str]]

    @property
    def actions(self) -> set[str]:
        return set().union(*self.statements.values())


@pytest.fixture(scope="module")
def roles():
    stack = hardened.synthesised("strongest").protected
    handlers = {
        p["Role"].rpartition("/")[2]: p["Handler"].removeprefix(PREFIX).removesuffix(".handler")
        for _, p in stack.of("AWS::Lambda::Function")
        if str(p.get("Handler")).startswith(PREFIX)
    }
    found = []
    for name, properties in stack.of("AWS::IAM::ManagedPolicy"):
        (role,) = properties["Roles"]
        statements = {
            s["Sid"]: {s["Action"]} if isinstance(s["Action"], str) else set(s["Action"])
            for s in properties["PolicyDocument"]["Statement"]
        }
        found.append(Granted(name, handlers.get(role), statements))
    return found


def needed(handler):
    """The IAM actions of a handler's calls, by the reviewed table."""
    operations = TABLE["operations"]
    return {action for call in TABLE["handlers"][handler]["calls"] for action in operations[call]}


def unexplained(role):
    """(statement, action) that neither a call nor a reason explains."""
    if role.handler is None:
        known = any(part in role.policy for part in TABLE["services"])
        return [] if known else [(sid, action) for sid, actions in role.statements.items() for action in actions]
    calls_for = needed(role.handler)
    return [
        (sid, action)
        for sid, actions in role.statements.items()
        if sid not in TABLE["platform"] and sid not in TABLE["reasons"]
        for action in actions - calls_for
    ]


def missing(role):
    """IAM actions of the handler's calls that its policy does not grant."""
    # PassRole and grants are asked for only where a monitoring role or a customer key is given.
    conditional = {"iam:PassRole", "kms:CreateGrant", "kms:DescribeKey"}
    return sorted(needed(role.handler) - role.actions - conditional)


def test_the_table_speaks_of_exactly_what_each_handlers_code_can_reach(roles):
    found = {role.handler: set(calls.reached(role.handler)) for role in roles if role.handler}
    if os.environ.get("UPDATE_GOLDEN"):
        _rewrite(roles, found)
        return
    written = {h: set(row["calls"]) | set(row["never"]) for h, row in TABLE["handlers"].items()}
    assert found == written, "code and tests/data/operations.json differ: UPDATE_GOLDEN=1 writes it, review the change"


def test_every_call_has_its_iam_actions_in_the_table():
    called = {call for row in TABLE["handlers"].values() for call in row["calls"]}
    assert called <= set(TABLE["operations"])


def test_every_call_is_allowed_by_the_roles_policy(roles):
    assert {role.policy: missing(role) for role in roles if role.handler and missing(role)} == {}


def test_every_statement_is_needed_by_a_call_or_has_a_reason(roles):
    assert {role.policy: unexplained(role) for role in roles if unexplained(role)} == {}


def test_every_reason_is_still_of_a_statement_that_exists(roles):
    statements = {sid for role in roles for sid in role.statements}
    # A cluster with a secret logs in with it, an option without one by IAM.
    assert set(TABLE["reasons"]) - statements <= {"ConnectByIam"}
    assert set(TABLE["platform"]) <= statements
    for part in set(TABLE["services"]) - {"FlowLogs", "LongRunning"}:  # options of other stacks
        assert any(part in role.policy for role in roles if role.handler is None), part


def test_no_role_but_those_that_delete_on_purpose_may_delete(roles):
    deleting = {role.policy for role in roles if any(re.search(r":(Delete|Remove)", a) for a in role.actions)}
    deleting = {name for name in deleting if not re.search(r"CleanUp|Janitor|Snapshots|Workflow|Retention|Hold", name)}
    network = {"ec2:DeleteNetworkInterface"}
    assert not [r.policy for r in roles if r.policy in deleting and {
        a for a in r.actions if re.search(r":(Delete|Remove)", a)} - network]  # fmt: skip


# The controls: the check must fail when either side changes.


def test_control_a_permission_that_is_taken_away_is_missed(roles):
    role = next(r for r in roles if r.handler == "dump")
    weaker = Granted(role.policy, role.handler, {s: a - {"s3:PutObject"} for s, a in role.statements.items()})
    assert missing(weaker) == ["s3:PutObject"]


def test_control_a_permission_that_is_added_is_unexplained(roles):
    role = next(r for r in roles if r.handler == "dump")
    stronger = Granted(role.policy, role.handler, {**role.statements, "Spare": {"rds:DeleteDBCluster"}})
    assert unexplained(stronger) == [("Spare", "rds:DeleteDBCluster")]


def test_control_the_call_graph_sees_a_call_behind_two_modules():
    assert "describe_db_instances" in calls.reached("find_instance")
    assert "put_restore_validation_result" in calls.reached("answer_native_test")


def _rewrite(roles, found):
    rows = {}
    for role in roles:
        if role.handler:
            granted = rows.setdefault(role.handler, set())
            granted |= role.actions
    TABLE["handlers"] = {
        handler: {
            "calls": sorted(c for c in found[handler] if _plain(c) and _plain(c) <= actions),
            "never": sorted(c for c in found[handler] if not (_plain(c) and _plain(c) <= actions)),
        }
        for handler, actions in sorted(rows.items())
    }
    text = json.dumps(TABLE, indent=2)
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    PATH.write_text(text + "\n")


def _plain(call):
    """A call's actions without its dependents."""
    actions = TABLE["operations"].get(call, [])
    return {a for a in actions if not a.startswith(("kms:", "iam:"))} or set(actions)
