"""Events that AWS services put on the default bus by themselves: `aws.rds` and `aws.backup`."""

from __future__ import annotations

import datetime as dt
import json
import logging
from typing import Any

from ministack.services import eventbridge

log = logging.getLogger("local.events")


def emit(source: str, detail_type: str, detail: dict[str, Any], resources: list[str]) -> None:
    """Put one event on the default bus, in the account and Region of the current request."""
    entry = {"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail), "Resources": resources}
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
    log.info("%s %s %s", source, detail_type, detail.get("Message") or detail.get("state") or detail.get("status"))


def timestamp(moment: dt.datetime) -> str:
    """As events spell it: 2026-11-23T03:00:00.000Z."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
