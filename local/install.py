"""Put our modules where MiniStack looks. The one place that changes it; `local.seams` lists the names."""

from __future__ import annotations

from ministack.services import rds, scheduler

from local import iam, lambdas, s3, stepfunctions
from local.backup import api as backup
from local.cloudformation import backup as backup_types
from local.cloudformation import names_and_keys, others, register
from local.cloudformation import rds as rds_types
from local.cloudformation import s3 as s3_types
from local.rds.api import api as rds_api
from local.rds.api import query_handler

_TAGGING = ("AddTagsToResource", "RemoveTagsFromResource", "ListTagsForResource")
_OURS = (":cluster:", ":db:", ":cluster-snapshot:")


def everything() -> None:
    """Called once, before the first request."""
    _rds()
    backup.install()
    s3.install()
    iam.install()
    lambdas.install()
    stepfunctions.install({"rds": rds_api, "backup": backup.api})
    for types in (rds_types, s3_types, backup_types, others, names_and_keys):
        types.install()
    register.use_worker_threads()
    # Schedules fire when a test or the drill says so, never because the clock passed a Saturday night.
    scheduler.start_scheduler = lambda: None


def _rds() -> None:
    for name in rds_api.operations:
        ours, theirs = query_handler(name), rds._ACTION_MAP.get(name)
        if name in _TAGGING:  # parameter groups and subnet groups are MiniStack's
            rds._ACTION_MAP[name] = lambda p, ours=ours, theirs=theirs: (
                ours if any(kind in rds._p(p, "ResourceName") for kind in _OURS) else theirs
            )(p)
        else:
            rds._ACTION_MAP[name] = ours
