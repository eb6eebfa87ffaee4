"""Values on their way into columns."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from servmon.model import CheckSource, Phases, Status
from servmon.store import rows

ODD = [Status.UP, CheckSource.MANUAL, Phases(dns_ms=1.5), datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "\0", "\ud800"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_the_quick_way_to_json_says_what_the_slow_one_says(value):
    def outcome(make):
        try:
            return json.loads(make(value))
        except ValueError:
            return ValueError

    assert outcome(rows.to_json) == outcome(rows._to_json_slowly)
