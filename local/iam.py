"""GetAccountAuthorizationDetails, which MiniStack answers without the policies that AWS manages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ministack.services import iam

if TYPE_CHECKING:
    from collections.abc import Callable

_OPERATION = "GetAccountAuthorizationDetails"
_END = b"</Policies>"
# What MiniStack attaches for an empty list parameter of a template (the role that `cdk bootstrap` makes): no policy.
_NOTHING = b"<member><PolicyName></PolicyName><PolicyArn></PolicyArn></member>"

Answer = tuple[int, dict[str, str], bytes]


def install() -> None:
    """Wrap MiniStack's operation; what else it answers stays its own."""
    iam._IAM_HANDLERS[_OPERATION] = _with_managed_policies(iam._IAM_HANDLERS[_OPERATION])


def _with_managed_policies(theirs: Callable[[dict[str, Any]], Answer]) -> Callable[[dict[str, Any]], Answer]:
    def answer(parameters: dict[str, Any]) -> Answer:
        status, headers, body = theirs(parameters)
        attached = (
            record for record in iam._aws_managed_policies.values() if f"<PolicyArn>{record['Arn']}<".encode() in body
        )
        members = "".join(_member(record) for record in attached).encode()
        return status, headers, body.replace(_END, members + _END).replace(_NOTHING, b"")

    return answer


def _member(record: dict[str, Any]) -> str:
    versions = "".join(
        f"<member><Document>{quote(version['Document'], safe='')}</Document>"
        f"<VersionId>{version['VersionId']}</VersionId><IsDefaultVersion>"
        f"{str(bool(version.get('IsDefaultVersion'))).lower()}</IsDefaultVersion></member>"
        for version in record["Versions"].values()
    )
    return (
        f"<member><PolicyName>{record['PolicyName']}</PolicyName><PolicyId>{record['PolicyId']}</PolicyId>"
        f"<Arn>{record['Arn']}</Arn><Path>{record['Path']}</Path><DefaultVersionId>{record['DefaultVersionId']}"
        f"</DefaultVersionId><PolicyVersionList>{versions}</PolicyVersionList></member>"
    )
