"""A channel's own words: what a template may, what it may not, and what becomes of the message where it fails."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from servmon.alerts import templates
from servmon.alerts.alert import MessageKind
from servmon.alerts.channels import SETTINGS, open_channel
from servmon.alerts.channels.wording import cut
from servmon.alerts.content import DELAYED, REMARKS
from servmon.alerts.template_values import VARIABLES, samples, values_of
from servmon.alerts.templates import BadTemplateError, Template
from servmon.settings import SettingsError, load
from tests.alerts.test_channels import message, smtp, webhook

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")
EVIL = '<b>&"x"</b>\r\nBcc: all@isp.example {{ 7*7 }} {% raw %}'
OUTAGE = {
    "outage_id": "1", "endpoint_id": "e", "name": EVIL, "start_time": "2026-11-24T02:58:00.000000Z",
    "resolved_at": None, "description": EVIL, "takes_down": [],
}  # fmt: skip
CONTENT = {"kind": "down", "title": EVIL, "rule": "service_down", "outages": [OUTAGE], "outage_count": 1}


async def posted(web_server, given=None, **words) -> dict:
    """What a webhook with these words receives of a message."""
    server = await web_server()
    await webhook(server.url + "/", **words).send(given or message())
    return json.loads(server.requests[0].body)


def part(mail, kind: str) -> str:
    return mail.get_body((kind,)).get_content().replace("\r\n", "\n")


async def test_a_channel_says_it_in_its_own_words(web_server):
    words = {
        "subject": "{{ kind|upper }}: {{ title }}",
        "text": "{% for outage in outages %}\n{{ outage.name }} since {{ outage.start_time }}\n{% endfor %}\n"
        "{{ closed_at }}{{ endpoint.owner }}!",
    }
    outage = OUTAGE | {"name": "Kern"}
    found = await posted(web_server, message(content=CONTENT | {"title": "Kern", "outages": [outage]}), **words)
    assert found["subject"] == "DOWN: Kern"
    assert found["text"] == "Kern since 2026-11-24 02:58:00 UTC\n!\n"


async def test_what_a_stranger_wrote_is_on_one_line_escaped_in_html_and_never_run(mail_server):
    server = await mail_server()
    words = {
        "subject": "{{ title }}\n{{ outage.name }}",
        "text": "{{ outage.description }}",
        "html": "<html><body><p title='{{ title }}'>{{ outage.description }}</p></body></html>",
    }
    await smtp(server.port, **words).send(message(content=CONTENT))
    (mail,) = server.mails
    assert mail["Bcc"] is None
    assert "{{ 7*7 }}" in mail["Subject"]
    assert part(mail, "plain") == EVIL.replace("\r\n", "  ") + "\n"
    page = part(mail, "html")
    assert page.count("<b>") == 0
    assert "<p title='&lt;b&gt;&amp;&#34;x&#34;&lt;/b&gt;  Bcc: all@isp.example {{ 7*7 }}" in page


@pytest.mark.parametrize("late", [True, False], ids=["late", "by a fallback"])
async def test_what_is_late_or_comes_another_way_says_so_in_whatever_words(mail_server, late):
    server = await mail_server()
    remark = "This message is delayed: <so>" if late else "Sent here in place of sms"
    content = {REMARKS: [remark], **({DELAYED: "3 h"} if late else {})}
    words = {"subject": "S", "text": "T", "html": "<!doctype html><html><body class='x'><i>T</i></body></html>"}
    await smtp(server.port, **words).send(message(content=content))
    (mail,) = server.mails
    assert mail["Subject"] == ("[delayed 3 h] S" if late else "S")
    assert part(mail, "plain") == f"{remark}\n\nT\n"
    escaped = remark.replace("<so>", "&lt;so&gt;")
    assert f"<body class='x'><p>{escaped}</p><i>T</i>" in part(mail, "html")


async def test_a_template_that_fails_while_sending_costs_the_words_and_not_the_message(web_server):
    given = message(content={"kind": "down", "outages": [OUTAGE, OUTAGE, OUTAGE]})
    found = await posted(web_server, given, text="{{ 6 / (outages|length - 3) }}")
    assert found["subject"] == given.subject
    assert found["text"].startswith(given.body)
    assert "The template 'text' of this channel could not be used" in found["text"]
    assert "line 1 of the template: ZeroDivisionError" in found["text"]


async def test_content_in_a_shape_of_long_ago_costs_the_words_and_not_the_message(web_server):
    found = await posted(web_server, message(content={"outages": ["1"], "opened_at": "yesterday"}), text="{{ title }}")
    assert "could not be used" in found["text"]


async def test_a_summary_keeps_its_list_whatever_the_template(web_server):
    given = message(MessageKind.SUMMARY, body="- DOWN: 1\n- DOWN: 2\n")
    assert (await posted(web_server, given, text="{{ title }}"))["text"] == given.body


# What cannot be used is said when it is read.


@pytest.mark.parametrize(
    ("key", "source", "sentence"),
    [
        ("text", "a\n{{ titel }}", "line 2 of the template: there is no variable 'titel'; was title meant?"),
        ("text", "{{ x }}", "line 1 of the template: there is no variable 'x'; there are subject, text, kind"),
        ("text", "\n\n{% for o in outages %}{{ o.nmae }}{% endfor %}", "line 2 of the template: 'dict object' has no"),
        ("text", "{{ endpoints[0].name }}", "(a message of the kind 'event')"),
        ("text", "{% if title %}", "line 1 of the template: Unexpected end of template"),
        ("text", "{{ title|nothing }}", "No filter named 'nothing'"),
        ("text", "{{ title|safe }}", "No filter named 'safe'"),
        ("text", "{{ title.__class__.__mro__ }}", "line 1 of the template: access to attribute '__class__'"),
        ("text", "{{ outages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe"),
        ("text", "{% include '/etc/passwd' %}", "line 1 of the template: include is not for messages"),
        ("text", "{% macro m() %}{{ m() }}{% endmacro %}", "macro is not for messages"),
        ("text", "{% autoescape false %}{{ title }}{% endautoescape %}", "is not for messages"),
        ("text", "{{ 'x' * 1000 }}", "* is for numbers"),
        ("text", "{{ 9 ** 9 }}", "the number is too large"),
        ("text", "{{ 'x'.ljust(1000000000) }}", "1000000000 is too large a number"),
        ("text", "{{ range(3) }}", "there is no variable 'range'"),
        ("text", "{{ ('(' * 2000) }}", "* is for numbers"),
        ("text", "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "it is nested too deeply"),
        ("html", "<b>{{ title }}</b>", "is for mails; a channel of the kind webhook has subject and text"),
        ("subject_limit", 5, "must be at least 20"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_sentence_with_its_place(tmp_path, key, source, sentence):
    file = tmp_path / "c.toml"
    written = f"'''{source}'''" if isinstance(source, str) else source
    file.write_text(
        f'[alert]\nnotification_channels = []\n[channels.noc]\nkind = "webhook"\nurl = "https://h.example/"\n{key} = '
        f"{written}\n",
        encoding="utf-8",
    )
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    (line,) = caught.value.lines
    assert line.startswith(f"{file}:6: channels.noc.{key}: ")
    assert sentence in line


def test_a_template_may_stand_in_a_file_beside_the_configuration(tmp_path):
    file = tmp_path / "c.toml"
    (tmp_path / "noc.txt").write_text("{{ title }} {{ nothing_of_it }}", encoding="utf-8")
    file.write_text(
        '[alert]\nnotification_channels = []\n[channels.noc]\nkind = "webhook"\nurl = "https://h.example/"\n'
        'text_file = "noc.txt"\n',
        encoding="utf-8",
    )
    with pytest.raises(
        SettingsError, match=r"c\.toml:6: channels\.noc\.text_file: line 1 of the template: there is no"
    ):
        load(file, {})
    (tmp_path / "noc.txt").write_text("{{ title }}", encoding="utf-8")
    assert load(file, {}).settings.channels["noc"].text == "{{ title }}"
    (tmp_path / "noc.txt").unlink()
    with pytest.raises(SettingsError, match=r"channels\.noc\.text: text_file: .*noc\.txt cannot be read"):
        load(file, {})


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{% for a in l %}{% for b in l %}{% endfor %}{% endfor %}", "its loops turn more than 50000 times"),
        ("{% for a in l %}{% for b in l if false %}{% endfor %}{% endfor %}", "its loops turn more than 50000 times"),
        ("{% for a in l %}{{ text }}{% endfor %}", "it makes more than 262144 characters"),
    ],
)
def test_a_template_ends(source, sentence):
    values = {"l": list(range(1000)), "text": "x" * 1000}
    template = Template(source.replace("in l", "in down"))
    with pytest.raises(BadTemplateError, match=sentence):
        template.render({**values, "down": values["l"]})


def test_a_template_that_is_slow_ends(monkeypatch):
    monkeypatch.setattr(templates, "SECONDS", -1.0)
    with pytest.raises(BadTemplateError, match="it takes longer than"):
        Template("{% for one in down %}{% endfor %}").render({"down": [1]})


def test_every_variable_is_there_for_every_message_and_stands_in_the_readme():
    for sample in samples():
        assert values_of(sample).keys() == VARIABLES.keys()
    section = README.partition("## Words of your own")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE))
    assert rows == dict(VARIABLES)


def test_the_readmes_example_can_be_used(tmp_path):
    section = README.partition("## Words of your own")[2]
    file = tmp_path / "c.toml"
    written = re.search(r"```toml\n(.*?)```", section, re.DOTALL)[1]
    file.write_text(f"[alert]\nnotification_channels = []\n{written}", encoding="utf-8")
    words = Template(load(file, {}).settings.channels["sms"].text)
    assert words.render(values_of(next(samples()))) == "DOWN Edge 1\nEdge 1 since 02:58: no answer\n"


# What is too long


def test_what_is_too_long_is_cut_at_a_line_and_says_where_the_rest_is():
    given = message(body="".join(f"line {number}\n" for number in range(100)))
    found = cut(given, 300)
    assert len(found) <= 300
    kept, _, note = found.partition("\n… cut here: ")
    assert given.body.startswith(kept + "\n")
    left = given.body[len(kept) :].strip("\n")
    lines = left.count("\n") + 1
    assert (
        note == f"{len(left):,} more characters in {lines} more lines; the whole text: GET /alerts/{given.alert_id}\n"
    )


def test_what_fits_is_not_cut():
    given = message(body="x" * 300)
    assert cut(given, 300) == given.body
    assert len(cut(given, 299)) <= 299


async def test_limits_are_a_channels_own(web_server):
    given = message(subject="s" * 100, body="t" * 1000)
    found = await posted(web_server, given, subject_limit=20, text_limit=200)
    assert found["subject"] == "s" * 19 + "…"
    assert len(found["text"]) <= 200
    assert len(given.body) == 1000  # what is stored stays whole


def test_a_channel_without_templates_does_not_load_jinja(tmp_path):
    import subprocess  # noqa: PLC0415 - only here
    import sys  # noqa: PLC0415

    script = "import servmon.daemon, servmon.settings, sys; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False).returncode == 0


def test_words_are_read_anew_and_survive_the_way_between_processes():
    import pickle  # noqa: PLC0415

    section = SETTINGS["webhook"](url="https://h.example/", text="{{ title }}")
    assert open_channel(pickle.loads(pickle.dumps(section))).inner.kind == "webhook"
    assert replace(message(), html="x").html == "x"
