"""The pauses that a busy Hub asks for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from csvae_hub.hub.explain import pause_asked_for


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "0"}, 0),
        ({"retry-after": " 120 "}, 120),
        ({"retry-after": "9" * 5000}, float("inf")),
        *(
            ({"retry-after": text}, 0)
            for text in ("-5", "soon", "1e9", "nan", "٣", "", "Wed, 99 Foo 2015 07:28:00 GMT")
        ),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00"}, 0),
        ({"ratelimit": '"api";r=0;t=55'}, 55),
        ({"ratelimit": '"api";r=3;t=55'}, 0),
    ],
)
def test_a_pause_is_read_from_any_header(headers, seconds):
    assert pause_asked_for(headers) == seconds


def test_a_pause_may_be_a_date():
    then = datetime.now(timezone.utc) + timedelta(seconds=90)
    assert 80 < pause_asked_for({"retry-after": format_datetime(then, usegmt=True)}) <= 90
