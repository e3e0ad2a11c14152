from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_backup.identifiers import LONGEST, IdentifierError, derive, require_identifier

RDS = re.compile(r"[a-z](-?[a-z0-9])*")
WORDS = st.text(st.sampled_from("abcXYZ019-_ .:/ü"), max_size=80)


@given(WORDS, WORDS, st.sampled_from(["", "1", "12", "a-long-suffix-of-some-kind"]))
def test_whatever_it_is_derived_from_an_identifier_is_one_that_rds_accepts(prefix, execution, suffix):
    name = derive(prefix, execution, suffix)
    assert 1 <= len(name) <= LONGEST
    assert RDS.fullmatch(name)
    assert require_identifier(name, "name") == name


@given(st.lists(st.tuples(WORDS, WORDS), min_size=2, max_size=2, unique=True))
def test_two_executions_never_share_an_identifier(pairs):
    first, second = (derive("recovery-test", f"{a}|{b}") for a, b in pairs)
    assert first != second


def test_the_same_execution_always_gets_the_same_identifier_and_a_short_one_reads_as_it_is():
    assert derive("recovery-test", "clinic-monday", "1") == "recovery-test-clinic-monday-1"


def test_a_long_name_keeps_its_prefix_which_iam_goes_by():
    name = derive("recovery-test", "c" * 63 + "-6fa0a6d2-0f3b-4a59-9f3a-2f1f0c9f0d55")
    assert name.startswith("recovery-test-")
    assert len(name) <= LONGEST


@pytest.mark.parametrize("value", ["", "1abc", "a--b", "ab-", "a_b", "a" * 64, "ä", None, 7])
def test_what_rds_would_refuse_is_refused_with_field_rule_and_value(value):
    with pytest.raises(IdentifierError) as caught:
        require_identifier(value, "target_cluster_id")
    assert "target_cluster_id must be 1-63" in str(caught.value)
    assert repr(value) in str(caught.value)


def test_upper_case_is_stored_in_lower_case_as_rds_does():
    assert require_identifier("Clinic-2", "name") == "clinic-2"
