"""What the workflow tests made the functions call is what tests/data/calls.json says. Named so as to run last.

Run alone it has heard nothing, and passes. `UPDATE_CALLS=1` adds what is new; `python -m tests.synth.requests FILE`
adds what a drill heard, from its `calls.jsonl`. Review the difference: test_least_privilege.py holds every role to it.
"""

from __future__ import annotations

import json
import os

from tests import recording
from tests.synth import hardened, requests


def test_every_call_that_was_heard_is_in_the_reviewed_record(local_aws):
    lines = local_aws.calls.read_text().splitlines() if local_aws.calls.exists() else []
    heard = [*recording.HEARD, *map(json.loads, lines)]
    found = requests.written(heard, requests.functions(hardened.synthesised("strongest").protected))
    if os.environ.get("UPDATE_CALLS"):
        requests.write(found)
    known = {key: {json.dumps(call, sort_keys=True) for call in calls} for key, calls in requests.recorded().items()}
    new = {key: sorted(calls - known.get(key, set())) for key, calls in found.items()}
    assert {key: calls for key, calls in new.items() if calls} == {}
