"""`aws.rds` events, and the SNS messages of the event subscriptions that ask for them.

Event ids are those of the RDS User Guide; changes that it documents none for have an empty `EventID`.
"""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import urlencode

from ministack import app

from local import events
from local.rds.state import now

log = logging.getLogger("local.rds")

subscriptions: dict[str, dict[str, Any]] = {}
"""The properties of each AWS::RDS::EventSubscription, by name."""

_DETAIL_TYPES = {
    "CLUSTER": "RDS DB Cluster Event",
    "CLUSTER_SNAPSHOT": "RDS DB Cluster Snapshot Event",
    "DB_INSTANCE": "RDS DB Instance Event",
}
_SUBSCRIPTION_TYPES = {"CLUSTER": "db-cluster", "CLUSTER_SNAPSHOT": "db-cluster-snapshot", "DB_INSTANCE": "db-instance"}


def notify(source_type: str, arn: str, category: str, message: str, event_id: str = "") -> None:
    """Tell the default bus, and whoever subscribed. Called from worker threads only."""
    name = arn.split(":", 6)[-1]
    detail = {
        "EventCategories": [category],
        "SourceType": source_type,
        "SourceArn": arn,
        "Date": events.timestamp(now()),
        "Message": message,
        "SourceIdentifier": name,
        "EventID": event_id,
    }
    events.emit("aws.rds", _DETAIL_TYPES[source_type], detail, [arn])
    for properties in subscriptions.values():
        wanted = properties.get("SourceType") in (None, _SUBSCRIPTION_TYPES[source_type])
        categories, sources = properties.get("EventCategories"), properties.get("SourceIds")
        if wanted and (not categories or category in categories) and (not sources or name in sources):
            _publish(str(properties["SnsTopicArn"]), {**detail, "Event Message": message, "Event ID": event_id})


def _publish(topic: str, document: dict[str, Any]) -> None:
    form = {"Action": "Publish", "TopicArn": topic, "Message": json.dumps(document), "Subject": "RDS Notification"}
    headers = {"content-type": "application/x-www-form-urlencoded"}
    status, _, body = app.call_service_handler_sync(
        app.SERVICE_HANDLERS["sns"],
        "POST",
        "/",
        headers,
        urlencode(form).encode(),
        {},
    )
    if status != 200:
        log.warning("RDS event subscription: %s refused the message: %s", topic, body)
