"""Every role has what its code calls, and nothing that neither a call nor a reason explains.

Calls come from two places that check each other: the code itself (`calls.py` reads which operations a handler can
reach), and the workflow tests and the drill, which recorded what each function called, and on what
(tests/data/calls.json). The reviewed table (tests/data/operations.json) says what IAM asks for each operation, and the
reasons. An IAM engine decides every recorded request against the synthesised policies, with their resources and
conditions, the bucket's policy and the key's. The check fails when any of these changes without the others.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass, replace

import pytest

from tests.synth import attacks, calls, hardened, requests
from tests.synth.synthesis import ROOT

PATH = ROOT / "tests/data/operations.json"
TABLE = requests.TABLE
PREFIX = "aurora_backup.handlers."
# What was recorded and the call graph cannot see: by a name in a constant that a type has, and by older code.
UNSEEN = {
    "dump": {"list_objects_v2"},
    "restore_step": {"restore_db_cluster_from_snapshot", "restore_db_cluster_to_point_in_time"},
}


@dataclass(frozen=True)
class Granted:
    """A role of ours: which policy, for which handler (None: a service assumes it), its actions by statement.

    A role that two handlers run under is there twice.
    """

    policy: str
    handler: str | None
    statements: dict[str, set[str]]

    @property
    def actions(self) -> set[str]:
        return set().union(*self.statements.values())


@pytest.fixture(scope="module")
def roles():
    stack = hardened.synthesised("strongest").protected
    handlers = defaultdict(set)
    for _, p in stack.of("AWS::Lambda::Function"):
        if str(p.get("Handler")).startswith(PREFIX):
            handlers[p["Role"].rpartition("/")[2]].add(p["Handler"].removeprefix(PREFIX).removesuffix(".handler"))
    found = []
    for name, properties in stack.of("AWS::IAM::ManagedPolicy"):
        (role,) = properties["Roles"]
        statements = {
            s["Sid"]: {s["Action"]} if isinstance(s["Action"], str) else set(s["Action"])
            for s in properties["PolicyDocument"]["Statement"]
            if s["Effect"] == "Allow"
        }
        found += [Granted(name, handler, statements) for handler in handlers.get(role, {None})]
    return found


def missing(role):
    """IAM actions of the handler's unrecorded calls that its policy does not grant; recorded ones are tried below."""
    rows = (need for call in TABLE["handlers"][role.handler]["unrecorded"] for need in TABLE["operations"][call])
    return sorted({action for action, _, *when in rows if not when} - role.actions)


def test_the_table_speaks_of_exactly_what_each_handlers_code_can_reach(roles):
    found = {role.handler: set(calls.reached(role.handler)) for role in roles if role.handler}
    if os.environ.get("UPDATE_GOLDEN"):
        _rewrite(found)
        return
    assert set(found) == set(TABLE["handlers"])
    for handler, row in TABLE["handlers"].items():
        known = {*row["calls"], *row["unrecorded"], *row["never"]}
        assert found[handler] <= known, f"{handler} can reach more than {PATH.name} says: UPDATE_GOLDEN=1, and review"
        gone = known - found[handler] - UNSEEN.get(handler, set())
        assert gone == set(), f"{handler} cannot reach what the table says; take stale calls out of calls.json, too"


def test_every_unrecorded_call_has_its_reason():
    """UPDATE_GOLDEN writes none for a new call: somebody does, or records it, or moves it to `never`."""
    assert [(h, c) for h, row in TABLE["handlers"].items() for c, why in row["unrecorded"].items() if not why] == []


def test_no_call_is_of_two_kinds():
    for handler, row in TABLE["handlers"].items():
        kinds = [*row["calls"], *row["unrecorded"], *row["never"]]
        assert len(kinds) == len(set(kinds)), handler


def test_every_call_has_its_iam_actions_in_the_table():
    called = {call for row in TABLE["handlers"].values() for call in (*row["calls"], *row["unrecorded"])}
    assert called <= set(TABLE["operations"])


def test_every_unrecorded_call_is_allowed_by_the_roles_policy(roles):
    assert {role.policy: missing(role) for role in roles if role.handler and missing(role)} == {}


def changed_for_services(roles):
    """Roles that a service assumes whose actions are not those that were reviewed, statement by statement."""
    reviewed = TABLE["services"]
    return [
        role.policy
        for role in roles
        if role.handler is None and {s: sorted(a) for s, a in role.statements.items()}
        not in [row["statements"] for part, row in reviewed.items() if part in role.policy and "statements" in row]
        # what these use is asked for by the template itself, and evaluated below
        and not any(part in role.policy for part, row in reviewed.items() if "statements" not in row)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def apps_roles(default):
    """The roles of app.py's own stack that a service assumes and the strongest option set has not."""
    found = {}
    for name, statement in default.policies():
        if statement["Effect"] == "Allow" and any(part in name for part in ("LongRunning", "FlowLogs")):
            found.setdefault(name, {})[statement["Sid"]] = set(_listed(statement["Action"]))
    return [Granted(name, None, statements) for name, statements in found.items()]


def test_every_role_that_a_service_assumes_has_exactly_the_actions_that_were_reviewed(roles, apps_roles):
    assert changed_for_services([*roles, *apps_roles]) == []


def test_every_reason_is_still_of_something_that_exists(roles, apps_roles):
    assert set(TABLE["platform"]) <= {sid for role in roles for sid in role.statements}
    for part in TABLE["services"]:
        assert any(part in role.policy for role in [*roles, *apps_roles] if role.handler is None), part


def test_the_workflow_starts_no_build_with_other_commands_than_the_projects_and_sends_none(default):
    started = [s for _, s in default.policies() if "codebuild:StartBuild" in _listed(s["Action"])]
    allowed, denied = ([s for s in started if s["Effect"] == effect] for effect in ("Allow", "Deny"))
    assert len(allowed) == 1
    assert [(s["Resource"], s.get("Condition")) for s in denied] == [
        (allowed[0]["Resource"], {"Null": {"codebuild:source.buildspec": "false"}})
    ]
    definitions = json.dumps(default.all("AWS::StepFunctions::StateMachine"))
    assert "codebuild:startBuild" in definitions
    assert "BuildspecOverride" not in definitions


def beyond_the_platform(roles):
    """(policy, sid, actions) of statements that are named as the platform's and allow more than it uses."""
    return [
        (role.policy, sid, sorted(more))
        for role in roles
        for sid, actions in role.statements.items()
        if sid in TABLE["platform"] and (more := actions - set(TABLE["platform"][sid]["actions"]))
    ]


def test_what_the_platform_uses_is_no_more_than_was_reviewed(roles):
    assert beyond_the_platform(roles) == []


@pytest.mark.parametrize(("part", "sid"), [("BackupReplication", "Read"), ("LongRunning", "Log")])
def test_control_a_service_role_that_may_do_more_is_found(roles, apps_roles, part, sid):
    role = next(r for r in [*roles, *apps_roles] if part in r.policy and sid in r.statements)
    stronger = replace(role, statements={**role.statements, sid: role.statements[sid] | {"s3:*"}})
    assert changed_for_services([stronger]) == [role.policy]


def test_control_a_platform_statement_that_allows_more_is_found(roles):
    role = next(r for r in roles if r.handler == "dump")
    stronger = replace(role, statements={**role.statements, "Log": role.statements["Log"] | {"iam:*"}})
    assert beyond_the_platform([stronger]) == [(role.policy, "Log", ["iam:*"])]


def test_no_role_but_those_that_delete_on_purpose_may_delete(roles):
    deleting = {role.policy for role in roles if any(re.search(r":(Delete|Remove)", a) for a in role.actions)}
    deleting = {name for name in deleting if not re.search(r"CleanUp|Janitor|Snapshots|Workflow|Retention|Hold", name)}
    network = {"ec2:DeleteNetworkInterface"}
    assert not [r.policy for r in roles if r.policy in deleting and {
        a for a in r.actions if re.search(r":(Delete|Remove)", a)} - network]  # fmt: skip


# What was recorded.


@pytest.fixture(scope="module")
def stack():
    return hardened.synthesised("strongest").protected


@pytest.fixture(scope="module")
def asked(stack):
    return requests.Requests(stack, requests.recorded())


@dataclass(frozen=True)
class Decided:
    """Each request with the engine's decision and the statements of the role's policy that allow it."""

    rows: list[tuple[requests.Request, str, set[str]]]

    def refused(self):
        return [(r.function, r.call, r.action, r.resource) for r, decision, _ in self.rows if decision != "Allowed"]

    def used(self):
        return {(r.function, sid, r.action) for r, decision, sids in self.rows if decision == "Allowed" for sid in sids}


WEAKER = {  # control: (function, statement, what is changed of it) -> a request that must then be refused
    "resource": ("BackupLogicalDump", "WriteSets", {"Resource": "arn:aws:s3:::another/*"}),
    "condition": (
        "BackupRecoveryRecoveryTestCleanUp",
        "DeleteTestCopies",
        {"Condition": {"StringEquals": {"aws:ResourceTag/aurora-backup:owner": "somebody-else"}}},
    ),
    "effect": ("BackupRetentionAct", "Log", {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}),
}


@pytest.fixture(scope="module")
def decisions(stack, asked):
    """{"": as synthesised, and by control}: one run of the engine for all."""
    batches = {"": [(request, asked.functions[request.function]) for request in asked.all()]}
    for control, (key, sid, change) in WEAKER.items():
        function = asked.functions[key]
        weak = replace(function, statements={**function.statements, sid: {**function.statements[sid], **change}})
        batches[control] = [(request, weak) for request in asked.all() if request.function == key]
    for function, needs in requests.declared(stack):
        context = (("aws:SecureTransport", "true"),)
        batches[""] += [(requests.Request(function.key, "", *need, context), function) for need in dict.fromkeys(needs)]
    questions = [
        {**requests.simulation(request, n, function, stack), "id": f"{control}/{n}"}
        for control, batch in batches.items()
        for n, (request, function) in enumerate(batch)
    ]
    answers = attacks.evaluate(questions)
    found = {}
    for control, batch in batches.items():
        told = [answers[f"{control}/{n}"] for n in range(len(batch))]
        found[control] = Decided(
            [
                (
                    request,
                    answer["decision"],
                    {g["statement"] for g in answer["granted"] if g["policy"] == request.function},
                )
                for (request, _), answer in zip(batch, told, strict=True)
            ]
        )
    return found


def test_every_function_was_recorded(asked):
    assert set(asked.functions) == set(requests.recorded())


def test_every_recorded_request_is_allowed(decisions):
    assert decisions[""].refused() == []


def test_the_calls_of_the_table_are_those_that_were_recorded():
    """What the code can reach and nobody saw must be named `unrecorded`, with the reason, or `never`."""
    assert {handler: set(row["calls"]) for handler, row in TABLE["handlers"].items()} == _recorded_by_handler()


def idle(functions, used):
    """`function sid action` of everything that a policy allows and no recorded request used."""
    return {
        f"{function.key} {sid} {action}"
        for function in functions
        for sid, statement in function.statements.items()
        if sid not in _unasked(function) and statement.get("Effect") != "Deny"
        for action in _listed(statement["Action"])
        if (function.key, sid, action) not in used
    }


def _unasked(function):
    """Statements that the platform uses: Lambda of a function's role; of other roles only logs and traces."""
    return [sid for sid in TABLE["platform"] if function.handler or sid in {"DeliverLogs", "Trace"}]


def unexplained(lines):
    return sorted(line for line in lines if not any(re.fullmatch(pattern, line) for pattern in TABLE["idle"]))


def test_every_action_of_every_statement_was_used_or_has_a_reason(stack, asked, decisions):
    others = [function for function, _ in requests.declared(stack)]
    lines = idle([*asked.functions.values(), *others], decisions[""].used())
    assert unexplained(lines) == []
    assert [p for p in TABLE["idle"] if not any(re.fullmatch(p, line) for line in lines)] == [], "reasons of nothing"


@pytest.mark.parametrize("control", WEAKER)
def test_control_a_recorded_request_is_refused_when_its_policy_is_narrowed(decisions, control):
    assert decisions[control].refused()


def _listed(actions):
    return [actions] if isinstance(actions, str) else actions


# The controls: the check must fail when either side changes.


def test_control_a_permission_that_only_an_unrecorded_call_needs_is_missed_too(roles):
    role = next(r for r in roles if r.handler == "dump")
    weaker = Granted(role.policy, role.handler, {"WriteSets": {"s3:PutObject"}})
    assert missing(weaker) == ["s3:AbortMultipartUpload"]
    assert missing(role) == []


def test_control_a_permission_that_is_added_is_unexplained(asked, decisions):
    function = asked.functions["BackupLogicalDump"]
    spare = {"Spare": {"Action": "rds:DeleteDBCluster"}, "WriteSets": {"Action": ["s3:PutObject", "s3:DeleteObject"]}}
    stronger = replace(function, statements={**function.statements, **spare})
    found = unexplained(idle([stronger], decisions[""].used()))
    assert found == ["BackupLogicalDump Spare rds:DeleteDBCluster", "BackupLogicalDump WriteSets s3:DeleteObject"]


def test_control_the_call_graph_sees_a_call_behind_two_modules():
    assert "describe_db_instances" in calls.reached("find_instance")
    assert "put_restore_validation_result" in calls.reached("answer_native_test")


def _recorded_by_handler():
    handlers = {
        function.key: function.handler for function in requests.functions(hardened.synthesised("strongest").protected)
    }
    made = {}
    for key, found in requests.recorded().items():
        made.setdefault(handlers[key], set()).update(call for call, _ in found)
    return made


def _rewrite(found):
    """Calls as recorded; whatever else the code can newly reach becomes `unrecorded` without a reason, which fails."""
    made = _recorded_by_handler()
    rows = {}
    for handler in sorted(found):
        old = TABLE["handlers"].get(handler, {"unrecorded": {}, "never": []})
        done = made.get(handler, set())
        explained = {c: why for c, why in old["unrecorded"].items() if c in found[handler] and c not in done}
        never = sorted(found[handler] & set(old["never"]) - done)
        explained |= dict.fromkeys(sorted(found[handler] - done - set(never) - set(explained)), "")
        rows[handler] = {"calls": sorted(done), "unrecorded": explained, "never": never}
    PATH.write_text(_text({**TABLE, "handlers": rows}) + "\n")


def _text(value, depth=0):
    """JSON with a line for each row of a table, however long."""
    if depth > 2 or not isinstance(value, dict) or not value:
        return json.dumps(value)
    inner = (f"{'  ' * (depth + 1)}{json.dumps(key)}: {_text(item, depth + 1)}" for key, item in value.items())
    return "{\n" + ",\n".join(inner) + "\n" + "  " * depth + "}"
