"""Find the sets of a database in the bucket. A prefix without a manifest is not a set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_backup.errors import ManifestError
from aurora_backup.manifest import NAME, Manifest

if TYPE_CHECKING:
    from aurora_backup.s3 import Bucket


def set_keys(bucket: Bucket, prefix: str) -> list[str]:
    """Every committed set under a prefix, oldest first within a database (keys end in a timestamp)."""
    return sorted(key.removesuffix(NAME) for key in bucket.keys(prefix) if key.endswith(f"/{NAME}"))


def read_manifest(bucket: Bucket, key: str) -> Manifest:
    """Read the manifest of the set with this key.

    Raises:
        NoSuchObject: there is none, so this is not a backup.
        ManifestError: altered, malformed, of an unknown version, or of another set.

    """
    manifest = Manifest.from_json(bucket.read(key.rstrip("/") + "/" + NAME))
    if manifest.set != key.rstrip("/") + "/":
        raise ManifestError(f"set must be {key!r}, and the manifest there says {manifest.set!r}: it was moved")
    return manifest


def latest_manifest(bucket: Bucket, key: str) -> Manifest | None:
    """Return the newest readable manifest beside the set `key` (same prefix, cluster and database), or None."""
    parent = key.rstrip("/").rpartition("/")[0] + "/"
    for found in reversed(set_keys(bucket, parent)):
        try:
            return read_manifest(bucket, found)
        except ManifestError:
            continue
    return None
