"""The table of docs/athena.md against the evidence that the code writes."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import UTC, datetime

import pytest

from aurora_backup.evidence import DOCUMENTS, Attachment, Document, Record, chain_prefix
from tests.synth.synthesis import ROOT

DOCUMENT = (ROOT / "docs/athena.md").read_text()
KINDS = {"int": int, "bigint": int, "string": str}


@pytest.fixture(scope="module")
def columns():
    (ddl,) = re.findall(r"CREATE EXTERNAL TABLE \w+ \(\n(.*?)\n\)\n", DOCUMENT, re.DOTALL)
    return dict(re.match(r"\s*`?(\w+)`? (\S+?),?$", line).groups() for line in ddl.splitlines())


@pytest.fixture(scope="module")
def written():
    attachment = Attachment(name="report.json", key="a/report.json", sha256="00", bytes=1)
    record = Record(
        sequence=2, previous="00", kind="compliance-report", owner="clinic", execution="e",
        created=datetime(2026, 11, 23, tzinfo=UTC), body={"compliance_status": "COMPLIANT"}, attachments=(attachment,),
    )  # fmt: skip
    return record.to_bytes()


def test_the_columns_are_exactly_the_keys_of_a_record(columns, written):
    assert set(columns) == set(json.loads(written))


def test_every_plain_column_has_the_type_of_its_value(columns, written):
    for name, value in json.loads(written).items():
        if columns[name] in KINDS and name != "body":
            assert isinstance(value, KINDS[columns[name]]), name


def test_an_attachment_has_the_fields_of_the_code(columns):
    (inner,) = re.findall(r"array<struct<(.*)>>", columns["attachments"])
    assert [part.split(":")[0] for part in inner.split(",")] == [field.name for field in fields(Attachment)]


def test_the_query_for_rewritten_documents_reads_fields_that_a_record_has():
    fields_read = set(re.findall(r"document, '\$\.(\w+)'", DOCUMENT))
    assert fields_read == {"key", "sha256"}
    assert fields_read <= {field.name for field in fields(Document)}
    assert f"'$.{DOCUMENTS}'" in DOCUMENT


def test_a_record_is_one_line_because_the_serde_reads_lines(written):
    assert b"\n" not in written


def test_the_location_is_where_the_chain_lies():
    root = chain_prefix("owner").removesuffix("owner/")
    assert DOCUMENT.count(f"/{root}'") == 2


def test_the_sources_are_those_of_the_example():
    example = (ROOT / "examples/many_accounts/app.py").read_text()
    (projected,) = re.findall(r"'projection\.source\.values' = '(.*)'", DOCUMENT)
    pairs = re.findall(r'\("(\d{12})", "([a-z0-9-]+)"\)', example)
    assert projected.split(",") == [f"{account}-{region}" for account, region in pairs]
