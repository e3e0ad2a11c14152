"""Names that must be the same wherever they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Names

if TYPE_CHECKING:
    from constructs import IConstruct


def owner_of(strategy: IConstruct) -> str:
    """Whose a recovery point is: in tags, manifests and creation records, and asked for before a delete.

    strategy: the AuroraBackup, or the scope that the constructs were made in one by one. The name holds the stack's
    name and a hash of the path, so it is the construct's own within an account and Region, and stays while the
    construct keeps its place.
    """
    return Names.unique_resource_name(strategy, max_length=60, separator="-")
