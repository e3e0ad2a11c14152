"""What the policy of a key, a bucket or a vault says: whom it keeps out, and whom it lets in. Pure.

Only what certainly holds is concluded: a condition that this module does not know makes a denial count for nothing, and
an allowance count for everybody it names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_EXCEPTION_OPERATORS = {"ArnNotEquals", "ArnNotLike", "StringNotEquals", "StringNotLike"}
_OPEN = re.compile(r"[*?$]")  # a wildcard or a policy variable: whom such a name spares is anybody's guess
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


def exceptions_to_denial(document: object, actions: Collection[str], resource: str) -> list[str] | None:
    """Who may still do these actions to `resource`, an ARN or a pattern, when everybody else is denied them.

    Principal ARNs, sorted. None when some action is not denied to everybody else, or not for all that `resource` names.
    [] when it is denied to everybody.
    """
    found: set[str] = set()
    for action in actions:
        spared = [
            set(exempt)
            for statement in statements(document)
            if statement["Effect"] == "Deny"
            and ("AWS", "*") in principals(statement)
            and _covers(statement, action)
            and covers_resource(statement, resource)
            and (exempt := _exempt(statement)) is not None
        ]
        if not spared:
            return None
        found |= set.intersection(*spared)
    return sorted(found)


def refuses_plain_http(document: object, bucket_arn: str) -> bool:
    """Whether reading, writing and listing the bucket without TLS is denied to everybody."""
    denials = [
        s
        for s in statements(document)
        if s["Effect"] == "Deny" and ("AWS", "*") in principals(s) and _without_tls(s.get("Condition"))
    ]
    objects = f"{bucket_arn}/*"
    ways = (("s3:GetObject", objects), ("s3:PutObject", objects), ("s3:ListBucket", bucket_arn))
    return all(
        any(_covers(denial, action) and covers_resource(denial, resource) for denial in denials)
        for action, resource in ways
    )


def _without_tls(condition: object) -> bool:
    test = condition.get("Bool") if isinstance(condition, dict) and len(condition) == 1 else None
    return isinstance(test, dict) and {k.lower(): str(v).lower() for k, v in test.items()} == {
        "aws:securetransport": "false"
    }


def lets_in(document: object, account: str, friends: Sequence[str] = ()) -> list[str]:
    """Everybody outside the account whom the document allows anything: account numbers, ARNs or `*`, sorted.

    friends: account numbers, and ids of organisations, that may be let in. Services are not people, and are left out.
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
            # An organisation's id is taken as it stands: `o-*` is nobody's, and names everybody's.
            if key.lower() in _NARROWED_BY and {_account(value) for value in texts(values, key)} <= friends:
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
    if str(key).lower() != "aws:principalarn" or any(_OPEN.search(name) for name in names):
        return None
    return names


def covers_resource(statement: Mapping[str, Any], resource: str) -> bool:
    """Whether a statement is of everything that `resource`, an ARN or a pattern, names."""
    if "NotResource" in statement:
        return not any(meet(pattern, resource) for pattern in texts(statement["NotResource"], "NotResource"))
    return any(glob(pattern).fullmatch(resource) for pattern in texts(statement.get("Resource"), "Resource"))


def glob(pattern: str) -> re.Pattern[str]:
    """Matches what a pattern matches, also another pattern all of whose matches it matches."""
    return re.compile("".join({"*": ".*", "?": r"[^*]"}.get(c, re.escape(c)) for c in pattern), re.DOTALL)


def meet(one: str, other: str) -> bool:
    """Whether two patterns with `*` and `?` can match the same text."""
    waiting, seen = [(0, 0)], set()
    while waiting:
        n, m = waiting.pop()
        if (n, m) in seen:
            continue
        seen.add((n, m))
        if n == len(one) and m == len(other):
            return True
        a, b = one[n : n + 1], other[m : m + 1]
        if a == "*":
            waiting += [(n + 1, m), *([(n, m + 1)] if b else [])]
        if b == "*":
            waiting += [(n, m + 1), *([(n + 1, m)] if a else [])]
        if a and b and (a == b or "?" in (a, b)):
            waiting.append((n + 1, m + 1))
    return False
