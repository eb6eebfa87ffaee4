"""What an endpoint may say, and that every wrong field is named at once."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from servmon import probes
from servmon.errors import InvalidInputError, Problem
from servmon.model import Endpoint, Severity
from servmon.probes.base import Options
from servmon.probes.endpoint_fields import RESERVED_IDS
from servmon.probes.specification import EndpointDefaults, describe_endpoint, parse_endpoint, prepare

DEFAULTS = EndpointDefaults()
URL = {"url": "https://portal.example/"}


def parse(fields: Mapping[str, object], **how) -> Endpoint:
    return parse_endpoint(fields, DEFAULTS, **how)


def wrong(fields: Mapping[str, object], **how) -> list[str]:
    with pytest.raises(InvalidInputError) as error:
        parse(fields, **how)
    return [str(problem) for problem in error.value.problems]


def test_a_url_is_enough():
    endpoint = parse(URL)
    assert uuid.UUID(endpoint.id).version == 4
    assert endpoint.name == endpoint.id
    assert endpoint == Endpoint(id=endpoint.id, name=endpoint.id, url=URL["url"], protocol="HTTPS")


def test_what_is_left_out_is_as_the_settings_say():
    endpoint = parse_endpoint(URL, EndpointDefaults(30, 2.5, 1), source="config:main")
    assert (endpoint.check_interval, endpoint.timeout, endpoint.retries) == (30, 2.5, 1)
    assert endpoint.source == "config:main"
    assert endpoint.retry_interval is None


FULL = {
    "id": "portal-1",
    "name": "Customer portal",
    "url": "https://portal.example/login",
    "protocol": "HTTPS",
    "check_interval": 30,
    "timeout": 2.5,
    "retries": 0,
    "expected_status_code": 200,
    "expected_response_pattern": "welcome",
    "is_active": False,
    "retry_interval": 5,
    "detection_threshold": 2,
    "detection_window": 5,
    "recovery_threshold": 1,
    "degraded_outage_after": 10,
    "severity": "CRITICAL",
    "degraded_threshold_ms": 800.5,
    "depends_on": [["edge-1", "edge-2"], ["power"]],
    "tags": ["web", "customers"],
    "site": "pop-north",
}


def test_every_field_is_kept_and_described_as_it_was_given():
    endpoint = parse({**FULL, "headers": {"X": "y"}, "method": "POST"})
    assert endpoint.severity is Severity.CRITICAL
    assert endpoint.depends_on == (("edge-1", "edge-2"), ("power",))
    assert endpoint.options == {"headers": {"X": "y"}, "method": "POST"}
    described = describe_endpoint(endpoint)
    assert described == {
        **FULL,
        "headers": {"X": "y"},
        "method": "POST",
        "key": 0,
        "source": "api",
        "revision": 0,
        "created_at": None,
        "updated_at": None,
        "archived_at": None,
    }


def test_an_answer_can_be_sent_back():
    endpoint = parse({**FULL, "headers": {"X": "y"}})
    assert parse(describe_endpoint(endpoint), ignore_read_only=True) == endpoint
    stored = describe_endpoint(endpoint) | {"created_at": datetime(2026, 1, 1, tzinfo=UTC)}
    assert parse(stored, ignore_read_only=True) == endpoint
    assert len(wrong(stored)) == 6


def test_what_only_servmon_sets_is_refused_or_passed_over():
    fields = {**URL, "created_at": "2026-01-01", "key": 7, "in_maintenance": True}
    assert wrong(fields) == [
        "created_at: is set by servmon alone; leave it out",
        "key: is set by servmon alone; leave it out",
        "in_maintenance: is set by servmon alone; leave it out",
    ]
    assert parse(fields, ignore_read_only=True).key == 0


def test_null_means_not_given():
    every = {name: None for name in FULL if name != "url"}
    assert parse({**URL, **every, "id": "a", "method": None}) == parse({**URL, "id": "a"})
    assert wrong({"url": None, "id": "a"}) == ["url: is missing"]


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        ([], ()),
        (["a", "b"], (("a",), ("b",))),
        ([["a", "b"], ["c"]], (("a", "b"), ("c",))),
        (["a", ["b", "c"]], (("a",), ("b", "c"))),
    ],
)
def test_a_flat_dependency_is_a_group_of_its_own(given, groups):
    assert parse({**URL, "depends_on": given}).depends_on == groups


@pytest.mark.parametrize("severity", ["critical", "Minor", "WARNING"])
def test_severity_and_protocol_in_any_case(severity):
    endpoint = parse({"url": "a.test", "protocol": "https", "severity": severity})
    assert endpoint.severity == severity.upper()
    assert endpoint.protocol == "HTTPS"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("id", "", "must be 1 to 128 letters, digits, dots, underscores or hyphens"),
        ("id", "-a", "must be 1 to 128 letters"),
        ("id", "a/b", "must be 1 to 128 letters"),
        ("id", "é", "must be 1 to 128 letters"),
        ("id", "a\n", "must be 1 to 128 letters"),
        ("id", "a" * 129, "must be 1 to 128 letters"),
        ("id", 5, "must be text, not 5"),
        ("name", "", "must hold a visible character"),
        ("name", " ", "must hold a visible character"),
        ("name", "a\x1b[0m", "must hold a visible character, and no control characters"),
        ("name", "a\u2028b", "must hold a visible character, and no control characters"),
        ("name", "a\0", "holds a NUL or half a character"),
        ("name", "a\ud800", "holds a NUL or half a character"),
        ("name", "a" * 201, "must be at most 200 characters"),
        ("check_interval", 0, "must be at least 1, not 0"),
        ("check_interval", -5, "must be at least 1, not -5"),
        ("check_interval", 2.5, "must be a whole number, not 2.5"),
        ("check_interval", "60", "must be a whole number, not '60'"),
        ("check_interval", True, "must be a whole number, not true"),
        ("check_interval", 10**30, "must be at most 2678400"),
        ("timeout", 0, "must be more than 0, not 0"),
        ("timeout", 301, "must be at most 300, not 301"),
        ("timeout", float("nan"), "must be a number, and nan is none"),
        ("timeout", float("inf"), "must be a number, and inf is none"),
        ("timeout", 10**400, "must be at most 300"),
        ("timeout", False, "must be a number, not false"),
        ("retries", -1, "must be at least 0, not -1"),
        ("retries", 21, "must be at most 20, not 21"),
        ("expected_status_code", 99, "must be at least 100, not 99"),
        ("expected_status_code", 600, "must be at most 599, not 600"),
        ("expected_status_code", "200", "must be a whole number, not '200'"),
        ("expected_response_pattern", "(", "is not a regular expression: missing ), unterminated subpattern"),
        ("expected_response_pattern", "a{99999999999}", "is not a regular expression: "),
        ("expected_response_pattern", "a" * 2001, "must be at most 2000 characters"),
        ("is_active", "yes", "must be true or false, not 'yes'"),
        ("is_active", 1, "must be true or false, not 1"),
        ("retry_interval", 0, "must be at least 1"),
        ("detection_threshold", 0, "must be at least 1"),
        ("recovery_threshold", 1001, "must be at most 1000"),
        ("severity", "BAD", "must be 'CRITICAL', 'MAJOR', 'MINOR' or 'WARNING', not 'BAD'"),
        ("degraded_threshold_ms", 0, "must be more than 0"),
        ("depends_on", "a", "must be a list, not 'a'"),
        ("tags", "web", "must be a list, not 'web'"),
        ("site", "", "must hold a visible character"),
        ("url", 5, "must be text, not 5"),
        ("protocol", 5, "must be text, not 5"),
        ("name", datetime(2026, 1, 1, tzinfo=UTC), "must be text, a number, true or false, or a list or table"),
        ("headers", [[[[[[[[[[]]]]]]]]]], "must be text, a number, true or false, or a list or table"),
    ],
)
def test_each_wrong_value_has_its_sentence(name, value, sentence):
    (found,) = wrong({**URL, name: value})
    assert found.startswith(f"{name}: {sentence}")


@pytest.mark.parametrize("reserved", sorted(RESERVED_IDS))
def test_the_words_of_routes_are_no_ids(reserved):
    (found,) = wrong({**URL, "id": reserved})
    assert found.startswith(f"id: {reserved!r} is a word of the API's routes")


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"tags": ["a", ""]}, "tags.1"),
        ({"tags": ["a", 5]}, "tags.1"),
        ({"depends_on": [["a"], []]}, "depends_on.1"),
        ({"depends_on": [["a", "b c"]]}, "depends_on.0.1"),
        ({"depends_on": ["a", 5]}, "depends_on.1"),
        ({"headers": {"a": 5}}, "headers.a"),
    ],
)
def test_a_wrong_part_is_named_by_its_place(fields, place):
    (found,) = wrong({**URL, **fields})
    assert found.startswith(f"{place}: ")


def test_everything_wrong_is_named_at_once():
    fields = {
        "url": "tcp://a.test:0",
        "id": "active",
        "timeout": -1,
        "tagz": ["x"],
        "expect": "x",
        "check_intervall": 5,
    }
    assert [sentence.split(": ")[0] for sentence in wrong(fields)] == [
        "id",
        "timeout",
        "url",
        "tagz",
        "check_intervall",
    ]
    fields |= {"protocol": "TCP"}
    assert "expect: is no field of an endpoint and no option of TCP" in wrong(fields)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tagz": []}, "tagz: is no field of an endpoint and no option of HTTPS; did you mean tags?"),
        ({"follow_redirect": 5}, "follow_redirect: is no field of an endpoint and no option of HTTPS; "),
        ({"xyzzy": None}, "xyzzy: is no field of an endpoint and no option of HTTPS"),
        ({"query_name": "x"}, "query_name: is no field of an endpoint and no option of HTTPS"),
    ],
)
def test_an_unknown_name_is_told_its_nearest(fields, sentence):
    (found,) = wrong({**URL, **fields})
    assert found.startswith(sentence)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"url": "tcp://a.test:1", "expected_status_code": 200}, "expected_status_code: means nothing to TCP"),
        (
            {"url": "icmp://a.test", "expected_response_pattern": "x"},
            "expected_response_pattern: means nothing to ICMP",
        ),
        ({"url": "dns://a.test/x.test", "expected_status_code": 200}, "expected_status_code: means nothing to DNS"),
    ],
)
def test_an_expectation_that_nobody_would_look_at_is_refused(fields, sentence):
    (found,) = wrong(fields)
    assert found.startswith(sentence)


def test_what_a_probe_refuses_beyond_single_values_is_named_too():
    assert wrong({"url": "dns://192.0.2.1"})[0].startswith("query_name: ")


def test_options_are_kept_as_plain_json_and_only_those_given():
    endpoint = parse({"url": "dns://192.0.2.1/a.test", "expected_answer": ("192.0.2.9",), "query_type": "a"})
    assert endpoint.options == {"expected_answer": ["192.0.2.9"], "query_type": "a"}
    assert json.loads(json.dumps(dict(endpoint.options))) == endpoint.options
    assert parse({"url": "dns://192.0.2.1/a.test", "expected_answer": "192.0.2.9"}).options == {
        "expected_answer": "192.0.2.9"
    }


def test_a_prepared_endpoint_has_all_that_a_check_needs():
    prepared = prepare(parse({**FULL, "method": "post"}))
    assert prepared.probe.protocol == "HTTPS"
    assert prepared.target.host == "portal.example"
    assert prepared.target.expected_status_code == 200
    assert prepared.target.pattern == re.compile("welcome")
    assert prepared.options.method == "POST"
    assert prepare(parse(URL)).options is prepare(parse({"url": "http://other.test"})).options


@pytest.mark.parametrize(
    "stored",
    [
        Endpoint(id="a", name="a", url="ftp://a.test", protocol="FTP"),
        Endpoint(id="a", name="a", url="tcp://a.test:5", protocol="TCP", options={"gone": 1}),
        Endpoint(id="a", name="a", url="nonsense:", protocol="TCP"),
    ],
)
def test_a_stored_endpoint_that_cannot_be_asked_any_more_is_said_so(stored):
    with pytest.raises(InvalidInputError):
        prepare(stored)


class SecretOptions(Options):
    password: SecretStr | None = None
    user: str = ""


class SecretProbe:
    protocol: ClassVar[str] = "SECRET"
    default_port: ClassVar[int | None] = 7
    options: ClassVar[type[Options]] = SecretOptions
    takes_socket: ClassVar[bool] = True


def test_secret_options_are_kept_and_never_shown(monkeypatch):
    monkeypatch.setitem(probes._BY_PROTOCOL, "SECRET", SecretProbe())
    endpoint = parse({"url": "secret://a.test", "password": "hunter2", "user": "me"})
    described = describe_endpoint(endpoint)
    assert (described["password"], described["user"]) == ("***", "me")
    assert prepare(endpoint).options.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(prepare(endpoint))
    (sentence,) = wrong({"url": "secret://a.test", "password": 123456789})
    assert "123456789" not in sentence


def test_no_option_bears_the_name_of_a_field():
    for probe in probes.PROBES:
        assert not probe.options.model_fields.keys() & describe_endpoint(parse(URL)).keys()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = [*FULL, *(name for probe in probes.PROBES for name in probe.options.model_fields), "other"]


@given(st.dictionaries(st.sampled_from(NAMES), json_values, max_size=6), st.sampled_from(probes.PROBES))
def test_anything_is_an_endpoint_or_sentences(fields, probe):
    url = "a.test" if probe.protocol == "ICMP" else "a.test:5"
    problems: tuple[Problem, ...] = ()
    try:
        endpoint = parse({"url": url, "protocol": probe.protocol} | fields)
    except InvalidInputError as error:
        problems = error.problems
    else:
        assert prepare(endpoint)
        json.dumps(describe_endpoint(endpoint), allow_nan=False).encode()
    assert all(problem.field and problem.message for problem in problems)


def test_twelve_thousand_endpoints_are_read_within_a_second_or_so():
    tables = [{**URL, "id": f"e{n}", "name": "Customer", "tags": ["x"], "method": "GET"} for n in range(12_000)]
    started = time.process_time()
    for table in tables:
        parse(table)
    assert time.process_time() - started < 3  # 0.6 s measured; the rest is for a busy machine
