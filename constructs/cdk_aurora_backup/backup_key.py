"""BackupKey: the customer key under which every backup lies, protected from deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_kms as kms
from constructs import Construct

from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.permissions import allow_services, deny_outside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aws_cdk import aws_iam as iam

_PENDING_WINDOW = Duration.days(30)  # the longest that KMS offers
DESTRUCTIVE_ACTIONS = ("kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:DeleteImportedKeyMaterial")


class BackupKey(Construct):
    """A rotating customer key that cannot be deleted or disabled, except by one named break-glass role.

    Deleting the key makes every backup under it unreadable for ever, whatever retention or vault lock says. Its policy
    therefore denies deletion and disabling to every principal but the break-glass role; without one, to every principal
    but the root user of the account, which nobody uses for daily work and whose use CloudTrail shows. Whoever may call
    kms:PutKeyPolicy can take the denial out first: BackupAlerts hears of that call too.

    break_glass: the only roles that may delete or disable the key. Default: the account's root user.
    protected: False leaves out the denial, for stacks that are torn down. Default: True.
    removal_policy: Default: RETAIN. A key that is not protected may be destroyed with its stack.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        break_glass: Sequence[iam.IRole] = (),
        protected: bool = True,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        if protected and removal_policy is RemovalPolicy.DESTROY:
            raise SynthError(
                "BackupKey.removal_policy must be RETAIN while protected is True: CloudFormation could not delete a "
                "key whose policy denies deletion; got DESTROY"
            )
        self._key = kms.Key(
            self,
            "Key",
            description="Encrypts the database's backups: without it they are unreadable",
            enable_key_rotation=True,
            pending_window=_PENDING_WINDOW,
            removal_policy=removal_policy,
        )
        allow_services(self, self._key)
        if protected:
            self._key.add_to_resource_policy(
                deny_outside("DenyDeletionOutsideBreakGlass", DESTRUCTIVE_ACTIONS, break_glass)
            )

    @property
    def key(self) -> kms.Key:
        """The key itself."""
        return self._key
