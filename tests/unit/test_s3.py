"""What is asked of S3, to the letter: encryption, conditions, checksums."""

from __future__ import annotations

import io

import boto3
import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber

from aurora_backup.errors import ArchiveDamaged, ObjectExists, S3Failed
from aurora_backup.s3 import Bucket, NoSuchObject, make_client

KEY = "arn:aws:kms:eu-west-1:000000000000:key/k"
ENCRYPTED = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": KEY, "BucketKeyEnabled": True}


@pytest.fixture
def stub():
    client = boto3.client("s3")
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def stubbed(stub):
    return Bucket(stub.client, "b", kms_key=KEY)


def test_an_upload_is_encrypted_with_a_bucket_key_and_has_a_full_object_checksum(stub, stubbed):
    checksum = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
    begin = {"Bucket": "b", "Key": "k", "ContentType": ANY, **checksum, **ENCRYPTED}
    stub.add_response("create_multipart_upload", {"UploadId": "u"}, begin)
    assert stubbed.begin("k") == "u"
    finish = {
        "Bucket": "b", "Key": "k", "UploadId": "u", "MultipartUpload": {"Parts": []}, "MpuObjectSize": 5,
        "ChecksumCRC32": "AAAAAA==", "ChecksumType": "FULL_OBJECT",
    }  # fmt: skip
    stub.add_response("complete_multipart_upload", {"ETag": "e", "VersionId": "v"}, {**finish, "IfNoneMatch": "*"})
    assert stubbed.finish("k", "u", [], size=5, crc32="AAAAAA==", replaces=None).version_id == "v"
    stub.add_response("complete_multipart_upload", {"ETag": "e"}, {**finish, "IfMatch": '"old"'})
    assert stubbed.finish("k", "u", [], size=5, crc32="AAAAAA==", replaces='"old"').version_id is None


def test_a_document_is_encrypted_checked_and_never_replaces_another(stub, stubbed):
    expected = {
        "Bucket": "b",
        "Key": "k",
        "Body": b"{}",
        "ContentType": ANY,
        "ChecksumAlgorithm": "SHA256",
        **ENCRYPTED,
    }
    stub.add_response("put_object", {"VersionId": "v"}, {**expected, "IfNoneMatch": "*"})
    assert stubbed.write("k", "{}", once=True) == "v"
    stub.add_response("put_object", {}, expected)
    assert stubbed.write("k", "{}", once=False) is None


@pytest.mark.parametrize(("there", "ours"), [(b"{}", True), (b"[]", False), (b"{ }", False)])
def test_a_taken_key_is_fine_only_when_it_holds_our_own_words(stub, stubbed, there, ours):
    stub.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    stub.add_response(
        "head_object",
        {"ContentLength": len(there), "ETag": "e", "VersionId": "v"},
        {"Bucket": "b", "Key": "k", "ChecksumMode": "ENABLED"},
    )
    if len(there) == 2:
        stub.add_response(
            "get_object", {"Body": StreamingBody(io.BytesIO(there), len(there)), "ContentLength": len(there)}
        )
    if ours:
        assert stubbed.write("k", "{}", once=True) == "v"
    else:
        with pytest.raises(ObjectExists):
            stubbed.write("k", "{}", once=True)


def test_a_composite_checksum_is_not_taken_for_a_full_one(stub, stubbed):
    answer = {"ContentLength": 5, "ETag": "e", "ChecksumCRC32": "AAAAAA==", "ChecksumType": "COMPOSITE"}
    stub.add_response("head_object", answer, {"Bucket": "b", "Key": "k", "ChecksumMode": "ENABLED", "VersionId": "v"})
    assert stubbed.head("k", "v").crc32 is None


def test_what_ends_early_is_damage_and_what_is_not_there_is_said(stub, stubbed):
    stub.add_response("get_object", {"Body": StreamingBody(io.BytesIO(b"abc"), 3), "ContentLength": 9})
    with pytest.raises(ArchiveDamaged, match="ended after 3 of 9 bytes"):
        stubbed.read("k")
    stub.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    assert stubbed.read_json("k") is None
    stub.add_client_error("get_object", "AccessDenied", http_status_code=403)
    with pytest.raises(S3Failed, match="AccessDenied"):
        stubbed.read("k")
    stub.add_client_error("abort_multipart_upload", "NoSuchUpload", http_status_code=404)
    stubbed.abort("k", "u")
    stub.add_client_error("head_object", "404", http_status_code=404)
    with pytest.raises(NoSuchObject):
        stubbed.head("k")


def test_a_client_for_large_uploads_neither_hashes_twice_nor_waits_for_ever():
    config = make_client(region="eu-west-1", connections=7).meta.config
    assert config.s3 == {"payload_signing_enabled": False}
    assert config.request_checksum_calculation == "when_required"
    assert (config.max_pool_connections, config.connect_timeout, config.read_timeout) == (7, 10, 60)
    assert config.retries["mode"] == "standard"
    assert make_client(region="eu-west-1").meta.config.max_pool_connections >= 8 * 2, "eight archives, two parts each"
