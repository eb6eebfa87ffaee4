from __future__ import annotations

import pytest
from pydantic import ValidationError

from servmon.elastic.settings import ElasticsearchSection
from servmon.settings import SettingsError, load


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"hosts": ["elastic.example:9200"]}, "is a URL such as"),
        ({"hosts": ["https://u:p@elastic.example:9200"]}, "must not hold a user or password"),
        ({"hosts": ["https://"]}, "is a URL such as"),
        ({"api_key": "x", "username": "u", "password": "p"}, "not both"),
        ({"username": "u"}, "belong together"),
        ({"password": "p"}, "belong together"),
        ({"client_key": "k"}, "belongs to a client_cert"),
        ({"retention_days": -1}, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_meant_is_told(given, sentence):
    with pytest.raises(ValidationError, match=sentence):
        ElasticsearchSection(**given)


def test_in_the_file_it_is_one_sentence_without_the_secret(tmp_path):
    path = tmp_path / "servmon.toml"
    path.write_text('[elasticsearch]\nhosts = ["https://u:planted@e.example"]\n', encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(path, {})
    (line,) = caught.value.lines
    assert "servmon.toml:2: elasticsearch.hosts" in line
    assert "planted" not in line
