"""RDS identifiers that are derived, never drawn: the same execution always names the same things. Pure.

The rules are those of "Naming constraints in Amazon RDS": 1-63 letters, digits and hyphens, lower case, a letter first,
no two hyphens in a row and none at the end.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 63
_HASH = 10  # 40 bits: one collision in a million executions of one cluster is a one-in-two chance only
_VALID = re.compile(r"[a-z](?:-?[a-z0-9])*")


class IdentifierError(ValueError):
    """An identifier breaks a rule of RDS. The message names the field, the rule and the value received."""


def require_identifier(value: object, name: str) -> str:
    """Return the value in lower case, as RDS stores it.

    Raises:
        IdentifierError: RDS would refuse it.

    """
    if not isinstance(value, str) or len(value) > LONGEST or not _VALID.fullmatch(value.lower()):
        raise IdentifierError(
            f"{name} must be 1-{LONGEST} letters, digits and hyphens, a letter first, no two hyphens in a row "
            f"and none at the end, got {value!r}"
        )
    return value.lower()


def derive(prefix: str, execution: str, suffix: str = "") -> str:
    """Join the three into an identifier that RDS accepts, unique for the execution.

    Where the joined text is not an identifier already (too long, upper case, other characters), it is made one and a
    hash of the original is added, so that two executions never share a name.
    """
    whole = "-".join(part for part in (prefix, execution, suffix) if part)
    if len(whole) <= LONGEST and _VALID.fullmatch(whole):
        return whole
    digest = hashlib.sha256(f"{prefix}\0{execution}\0{suffix}".encode()).hexdigest()[:_HASH]
    end = f"-{digest}-{_plain(suffix)}".rstrip("-")[: LONGEST // 2].rstrip("-")
    start = _plain(f"{prefix}-{execution}")
    start = re.sub(r"^[^a-z]+", "", start)[: LONGEST - len(end)].rstrip("-") or "x"
    return start + end


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
