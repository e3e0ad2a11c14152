"""AWS::S3::Bucket: what MiniStack drops (lifecycle, encryption, object lock, logging, ownership, tags, replication)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ministack.services import s3 as store
from ministack.services.cloudformation import provisioners

from local import s3
from local.cloudformation.register import Created, Properties, Provisioner, register

if TYPE_CHECKING:
    from collections.abc import Callable


def install() -> None:
    """Wrap MiniStack's provisioner."""
    theirs = dict(provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"])

    def create(logical_id: str, properties: Properties, stack: str) -> Created:
        name, attributes = theirs["create"](logical_id, properties, stack)
        try:
            _configure(name, properties, {})
        except Exception:
            theirs["delete"](name, properties)
            raise
        return name, attributes

    def update(physical_id: str, old: Properties, new: Properties, stack: str) -> Created:
        name, attributes = theirs["update"](physical_id, old, new, stack)
        _configure(name, new, old)
        return name, attributes

    def delete(physical_id: str, properties: Properties) -> None:
        bucket = store._buckets.get(physical_id)
        if bucket and (bucket["objects"] or store._bucket_has_versions(physical_id)):
            raise ValueError(f"The bucket you tried to delete is not empty: {physical_id}")
        theirs["delete"](physical_id, properties)

    register("AWS::S3::Bucket", Provisioner(create=create, update=update, delete=delete))


def _configure(bucket: str, properties: Properties, old: Properties) -> None:
    lock = properties.get("ObjectLockConfiguration")
    if str(properties.get("ObjectLockEnabled", "")).lower() == "true" or lock:
        store._bucket_versioning[bucket] = "Enabled"
    steps: tuple[tuple[str, str, Callable[[Any], dict[str, Any]], Any], ...] = (
        ("LifecycleConfiguration", "PutBucketLifecycleConfiguration", _lifecycle, store._put_bucket_lifecycle),
        ("BucketEncryption", "PutBucketEncryption", _encryption, store._put_bucket_encryption),
        ("LoggingConfiguration", "PutBucketLogging", _logging, store._put_bucket_logging),
        ("OwnershipControls", "PutBucketOwnershipControls", _ownership, store._put_bucket_ownership_controls),
        ("Tags", "PutBucketTagging", lambda tags: {"Tagging": {"TagSet": tags}}, store._put_bucket_tagging),
    )
    for key, operation, convert, put in steps:
        if properties.get(key) and properties.get(key) != old.get(key):
            s3.check(put(bucket, s3.body(operation, convert(properties[key]))))
    if "LifecycleConfiguration" in old and "LifecycleConfiguration" not in properties:
        store._bucket_lifecycle.pop(bucket, None)
    if properties.get("ObjectLockEnabled") or lock:
        document = s3.body("PutObjectLockConfiguration", _object_lock(lock or {}))
        s3.check(store._put_object_lock_configuration(bucket, document))


def _object_lock(lock: dict[str, Any]) -> dict[str, Any]:
    retention = (lock.get("Rule") or {}).get("DefaultRetention")
    configuration: dict[str, Any] = {"ObjectLockEnabled": "Enabled"}
    if retention:
        whole = {key: int(value) if key in ("Days", "Years") else value for key, value in retention.items()}
        configuration["Rule"] = {"DefaultRetention": whole}
    return {"ObjectLockConfiguration": configuration}


def _encryption(given: dict[str, Any]) -> dict[str, Any]:
    rules = []
    for rule in given["ServerSideEncryptionConfiguration"]:
        default = rule.get("ServerSideEncryptionByDefault") or {}
        rules.append(
            {
                "ApplyServerSideEncryptionByDefault": default,
                "BucketKeyEnabled": str(rule.get("BucketKeyEnabled", False)).lower() == "true",
            },
        )
    return {"ServerSideEncryptionConfiguration": {"Rules": rules}}


def _logging(given: dict[str, Any]) -> dict[str, Any]:
    if not given.get("DestinationBucketName"):
        return {"BucketLoggingStatus": {}}
    return {
        "BucketLoggingStatus": {
            "LoggingEnabled": {
                "TargetBucket": given["DestinationBucketName"],
                "TargetPrefix": given.get("LogFilePrefix", ""),
            },
        },
    }


def _ownership(given: dict[str, Any]) -> dict[str, Any]:
    return {"OwnershipControls": {"Rules": given["Rules"]}}


def _lifecycle(given: dict[str, Any]) -> dict[str, Any]:
    return {"LifecycleConfiguration": {"Rules": [_rule(rule) for rule in given["Rules"]]}}


def _rule(given: dict[str, Any]) -> dict[str, Any]:
    """One rule in the API's shape: CloudFormation names nearly everything differently."""
    rule: dict[str, Any] = {"Status": given["Status"], "Filter": _filter(given)}
    if "Id" in given:
        rule["ID"] = given["Id"]
    expiration: dict[str, Any] = {}
    if "ExpirationInDays" in given:
        expiration["Days"] = int(given["ExpirationInDays"])
    if "ExpiredObjectDeleteMarker" in given:
        expiration["ExpiredObjectDeleteMarker"] = str(given["ExpiredObjectDeleteMarker"]).lower() == "true"
    if expiration:
        rule["Expiration"] = expiration
    if given.get("Transitions"):
        rule["Transitions"] = [
            {"Days": int(step["TransitionInDays"]), "StorageClass": step["StorageClass"]}
            for step in given["Transitions"]
        ]
    if given.get("NoncurrentVersionTransitions"):
        rule["NoncurrentVersionTransitions"] = [
            {"NoncurrentDays": int(step["TransitionInDays"]), "StorageClass": step["StorageClass"]} | _newer(step)
            for step in given["NoncurrentVersionTransitions"]
        ]
    if given.get("NoncurrentVersionExpiration"):
        expiry = given["NoncurrentVersionExpiration"]
        rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": int(expiry["NoncurrentDays"])} | _newer(expiry)
    if given.get("NoncurrentVersionExpirationInDays"):
        rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": int(given["NoncurrentVersionExpirationInDays"])}
    if given.get("AbortIncompleteMultipartUpload"):
        days = int(given["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"])
        rule["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": days}
    return rule


def _newer(step: dict[str, Any]) -> dict[str, int]:
    return (
        {"NewerNoncurrentVersions": int(step["NewerNoncurrentVersions"])} if "NewerNoncurrentVersions" in step else {}
    )


def _filter(given: dict[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {"Prefix": given["Prefix"]} if given.get("Prefix") else {}
    parts |= {key: int(given[key]) for key in ("ObjectSizeGreaterThan", "ObjectSizeLessThan") if key in given}
    if given.get("TagFilters"):
        parts["Tags"] = given["TagFilters"]
    if len(parts) > 1:
        return {"And": parts}
    if "Tags" in parts:
        return {"Tag": parts["Tags"][0]} if len(parts["Tags"]) == 1 else {"And": parts}
    return parts or {"Prefix": ""}
