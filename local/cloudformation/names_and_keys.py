"""AWS::SNS::Topic, whose key MiniStack drops, and AWS::Logs::LogGroup, which it names otherwise than AWS does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ministack.services import sns
from ministack.services.cloudformation import provisioners

from local.cloudformation.register import Created, Properties, physical_name

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_GROUP = 512


def install() -> None:
    """Wrap MiniStack's provisioners; what else they do stays theirs."""
    for resource_type, wrap in (("AWS::SNS::Topic", _topic), ("AWS::Logs::LogGroup", _group)):
        theirs = provisioners._RESOURCE_HANDLERS[resource_type]
        provisioners._RESOURCE_HANDLERS[resource_type] = {**theirs, "create": wrap(theirs["create"])}


def _topic(theirs: Callable[[str, Properties, str], Created]) -> Callable[[str, Properties, str], Created]:
    def create(logical_id: str, properties: Properties, stack: str) -> Created:
        arn, attributes = theirs(logical_id, properties, stack)
        if key := properties.get("KmsMasterKeyId"):
            sns._topics[arn]["attributes"]["KmsMasterKeyId"] = key
        return arn, attributes

    return create


def _group(theirs: Callable[[str, Properties, str], Created]) -> Callable[[str, Properties, str], Created]:
    def create(logical_id: str, properties: Properties, stack: str) -> Created:
        named = properties.get("LogGroupName") or physical_name(stack, logical_id, longest=_LONGEST_GROUP)
        return theirs(logical_id, {**properties, "LogGroupName": named}, stack)

    return create
