"""What the policy of a key, a bucket or a vault says: whom it keeps out, and whom it lets in. Pure.

Only what certainly holds is concluded: a condition that this module does not know makes a denial count for nothing, and
an allowance count for everybody it names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_EXCEPTION_OPERATORS = {"ArnNotEquals", "ArnNotLike", "StringNotEquals", "StringNotLike"}
_NARROWED_BY = {  # conditions under which an Allow to everybody is not an Allow to everybody
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceowner",
    "aws:principalorgid",
    "aws:principalaccount",
    "aws:principalarn",
    "kms:calleraccount",
}


class DocumentError(ValueError):
    """A policy document is not what IAM's grammar allows."""


def statements(document: object) -> list[dict[str, Any]]:
    """The statements of a document; None is a document without any. Raises DocumentError."""
    if document is None:
        return []
    found = document.get("Statement") if isinstance(document, dict) else None
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list) or not all(
        isinstance(s, dict) and s.get("Effect") in ("Allow", "Deny") for s in found
    ):
        raise DocumentError("a policy must hold statements with an Effect of Allow or Deny")
    return found


def texts(value: object, what: str) -> list[str]:
    """One text or a list of them, as IAM's grammar lets both stand. Raises DocumentError."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str) and item for item in values):
        raise DocumentError(f"{what} must be a text or a list of texts")
    return list(values)


def principals(statement: dict[str, Any]) -> list[tuple[str, str]]:
    """The (kind, name) pairs that a statement speaks of; everybody is ("AWS", "*"). Raises DocumentError."""
    given = statement.get("Principal")
    if given == "*":
        return [("AWS", "*")]
    if not isinstance(given, dict) or not given:
        raise DocumentError("Principal must be * or an object")
    return [(str(kind), name) for kind, names in given.items() for name in texts(names, f"Principal.{kind}")]


def exceptions_to_denial(document: object, actions: Collection[str]) -> list[str] | None:
    """Who may still do these actions when everybody else is denied them: principal ARNs, sorted.

    None when some action is not denied to everybody else. [] when it is denied to everybody.
    """
    found: set[str] = set()
    for action in actions:
        spared = [
            set(exempt)
            for statement in statements(document)
            if statement["Effect"] == "Deny"
            and ("AWS", "*") in principals(statement)
            and _covers(statement, action)
            and (exempt := _exempt(statement)) is not None
        ]
        if not spared:
            return None
        found |= set.intersection(*spared)
    return sorted(found)


def refuses_plain_http(document: object) -> bool:
    """Whether every S3 action without TLS is denied to everybody."""
    for statement in statements(document):
        condition = statement.get("Condition")
        test = condition.get("Bool") if isinstance(condition, dict) and len(condition) == 1 else None
        if (
            statement["Effect"] == "Deny"
            and ("AWS", "*") in principals(statement)
            and _covers(statement, "s3:GetObject")
            and _covers(statement, "s3:PutObject")
            and isinstance(test, dict)
            and {k.lower(): str(v).lower() for k, v in test.items()} == {"aws:securetransport": "false"}
        ):
            return True
    return False


def lets_in(document: object, account: str, friends: Sequence[str] = ()) -> list[str]:
    """Everybody outside the account whom the document allows anything: account numbers, ARNs or `*`, sorted.

    friends: account numbers that may be let in. Services are not people, and are left out.
    """
    return sorted(set(_outsiders(document, {account, *friends})))


def _outsiders(document: object, friends: set[str]) -> Iterator[str]:
    for statement in statements(document):
        if statement["Effect"] != "Allow":
            continue
        if "NotPrincipal" in statement:
            yield "*"
            continue
        for kind, name in principals(statement):
            if kind == "Service":
                continue
            if name == "*" or "*" in _account(name):
                if not _narrowed(statement.get("Condition"), friends):
                    yield "*"
            elif _account(name) not in friends:
                yield name


def _account(name: str) -> str:
    parts = name.split(":")
    return parts[4] if len(parts) > 5 else name  # noqa: PLR2004  arn:partition:service:region:account:resource


def _narrowed(condition: object, friends: set[str]) -> bool:
    if not isinstance(condition, dict):
        return False
    for operator, tests in condition.items():
        if operator not in ("StringEquals", "StringLike", "ArnEquals", "ArnLike") or not isinstance(tests, dict):
            continue
        for key, values in tests.items():
            if key.lower() in _NARROWED_BY:
                named = {_account(value) for value in texts(values, key)}
                if key.lower() == "aws:principalorgid" or named <= friends:
                    return True
    return False


def _covers(statement: dict[str, Any], action: str) -> bool:
    if "Action" not in statement:  # NotAction says what is left out: nothing certain
        return False
    return any(
        re.fullmatch(re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", "."), action.lower())
        for pattern in texts(statement["Action"], "Action")
    )


def _exempt(statement: dict[str, Any]) -> list[str] | None:
    """Whom a denial spares; None when it is conditional in a way that is not known."""
    condition = statement.get("Condition")
    if condition in (None, {}):
        return []
    if not isinstance(condition, dict) or len(condition) != 1:
        return None
    ((operator, tests),) = condition.items()
    if operator not in _EXCEPTION_OPERATORS or not isinstance(tests, dict) or len(tests) != 1:
        return None
    ((key, values),) = tests.items()
    names = texts(values, key)
    if str(key).lower() != "aws:principalarn" or "*" in names:
        return None
    return names
