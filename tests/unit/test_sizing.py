"""How long, where, and when to give up: the decisions, as a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aurora_backup.manifest import Archive, Facts, Manifest, TableFacts
from aurora_backup.sizing import choose_engine, estimate, must_hand_over

GB = 10**9
ARCHIVE = Archive(key="k", version_id=None, bytes=GB, crc32="", tables=(), seconds=100)
FACTS = Facts(
    tables=(TableFacts(schema="s", name="t", rows=1, bytes=4 * GB),), sequences=(), large_objects=0,
    large_objects_digest=None, extensions={}, schema={}, server_major=17,
)  # fmt: skip
BEFORE = Manifest(
    set="", owner="", execution="", started="last week", finished="", snapshot_time="", snapshot_lsn=None,
    compression="", server_version="", client_version="", source={},
    archives=(ARCHIVE, replace(ARCHIVE, seconds=150)), facts=FACTS, roles={}, not_covered=(),
)  # fmt: skip


def test_without_an_earlier_set_the_rates_are_assumed_and_said_to_be():
    guess = estimate(40 * GB)
    assert (guess.seconds, guess.archive_bytes, guess.basis) == (1000, 20 * GB, "no earlier set: assumed rates")


def test_an_earlier_set_gives_its_own_rates():
    guess = estimate(8 * GB, BEFORE)
    assert (guess.seconds, guess.archive_bytes, guess.basis) == (300, 4 * GB, "the set of last week")


def test_the_long_running_engine_s_time_is_no_promise_for_a_function():
    made = {name: replace(BEFORE, source={"engine": {"name": name}}) for name in ("lambda", "codebuild")}
    assert estimate(40 * GB, made["lambda"]).seconds == 1500
    fast = replace(made["codebuild"], archives=(replace(ARCHIVE, seconds=10),))
    guess = estimate(40 * GB, fast)
    assert (guess.seconds, guess.basis) == (1000, "the set of last week, made by the long-running engine")
    assert estimate(40 * GB, made["codebuild"]).seconds == 1500


def test_an_earlier_set_of_an_empty_database_says_nothing():
    empty = replace(BEFORE, facts=replace(FACTS, tables=()))
    assert estimate(GB, empty).basis.startswith("no earlier set")


@pytest.mark.parametrize(
    ("seconds", "engine"), [(0, "lambda"), (560, "lambda"), (561, "codebuild"), (1e6, "codebuild")]
)
def test_lambda_is_chosen_only_with_time_to_spare(seconds, engine):
    assert choose_engine(seconds) == engine


@pytest.mark.parametrize(
    ("elapsed", "remaining", "sent", "expected", "hands_over"),
    [
        (10, 800, 0, GB, False),  # nothing measured yet
        (59, 800, 1, GB, False),
        (60, 800, 0, GB, True),  # nothing sent in a minute
        (60, 800, GB // 10, GB, False),  # 540 s more, 755 s to use
        (60, 800, GB // 15, GB, True),  # 840 s more
        (60, 800, 2 * GB, GB, False),  # larger than expected: only the clock decides
        (60, 44, 2 * GB, GB, True),
        (5, 44, 0, GB, True),
        (60, 46, 99, 100, False),
    ],
)
def test_a_dump_is_handed_over_when_its_measured_rate_will_not_do(elapsed, remaining, sent, expected, hands_over):
    reason = must_hand_over(elapsed=elapsed, remaining=remaining, sent=sent, expected=expected)
    assert (reason is not None) == hands_over
