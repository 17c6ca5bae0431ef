"""Are the mistakes in users' files told with the file, the key, the value and what is allowed?"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from simulator.userfile import mapping, parse, read, record, text, whole
from sram.errors import InputError


@dataclass
class Part:
    size: int

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}


@dataclass
class Whole:
    name: str
    part: Part
    parts: dict[str, Part] = field(default_factory=dict)

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}


@pytest.mark.parametrize(
    ("values", "key", "allowed"),
    [
        ({"part": {"size": 1}, "nam": "x"}, "nam", "name, part, parts"),
        ({"name": "x", "part": {"size": 1, "sizes": 2}}, "part.sizes", "size"),
        ({"name": "x", "part": {"size": 1}, "parts": {"a": {"size": 1, "colour": 2}}}, "parts.a.colour", "size"),
        ({"name": "x", "part": {}}, "part.size", "a value; this key is required"),
        ({"name": "x", "part": {"size": "large"}}, "part.size", "integer"),
        ({"name": "x", "part": {"size": 1}, 5: 6}, "5", ""),
        ({"name": "x", "part": {"size": 1}, "parts": {5: {"size": 1}}}, "parts.5.[key]", "string"),
    ],
)
def test_a_record_that_does_not_fit(tmp_path, values, key, allowed):
    with pytest.raises(InputError) as error:
        record(tmp_path / "x.yaml", Whole, values)
    assert (error.value.where, error.value.key) == (str(tmp_path / "x.yaml"), key)
    assert allowed in error.value.allowed


@given(st.binary(max_size=40))
def test_any_bytes_are_a_mapping_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert isinstance(mapping(path, "keys"), dict)


@given(st.text(max_size=6) | st.integers(-9, 10**25).map(str))
def test_a_whole_number_is_what_int_reads_and_no_more(text):
    number = whole(text, 10**6)
    assert (number is not None) == (text.isascii() and text.isdigit() and 1 <= int(text) <= 10**6)
    assert number is None or number == int(text)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a: 1\nb: 2\na: 3", "content (line 3)", "a"),
        ("a: {x: 1, x: 1}", "a (line 1)", "x"),
        ("a: [{b: 1, b: 2}]", "a.0 (line 1)", "b"),
        ("seed: yes", "seed (line 1)", "yes"),
        ("seed: On", "seed (line 1)", "On"),
        ("a: 1:20", "a (line 1)", "1:20"),
        ("a: 010", "a (line 1)", "010"),
        ("a: 0x10", "a (line 1)", "0x10"),
        ("a: 1_000", "a (line 1)", "1_000"),
        ("a: .nan", "a (line 1)", ".nan"),
        ("a: -.inf", "a (line 1)", "-.inf"),
        (f"a: {2**63}", "a (line 1)", str(2**63)),
        ("a: 1.0e+999", "a (line 1)", "1.0e+999"),
        ("a: 2026-01-01", "a (line 1)", "2026-01-01"),
        ("a: !!set {x}", "a (line 1)", "tag:yaml.org,2002:set"),
        ("a: !!python/name:os.system x", "a (line 1)", "x"),
        ("<<: [1]", "content (line 1)", "<<"),
        ("1: 2", "content (line 1)", "1"),
    ],
)
def test_what_may_not_mean_what_it_looks_like_is_refused(text, key, value):
    with pytest.raises(InputError) as error:
        parse(text, "mine.yaml")
    assert (error.value.where, error.value.key, error.value.value) == ("mine.yaml", key, value)


def test_plain_data_is_taken():
    text = "a: true\nb: [1, -2, +3, 1.5, 1.0e-3, .5, 'yes', \"010\", null, ~]\nc:\n  d: text of words\n"
    assert parse(text, "x") == {
        "a": True,
        "b": [1, -2, 3, 1.5, 0.001, 0.5, "yes", "010", None, None],
        "c": {"d": "text of words"},
    }
    assert parse("", "x") is None


def test_aliases_and_merges_stand_for_what_they_name():
    text = "base: &base {a: 1, b: [2]}\nother: {<<: *base, a: 3}\nboth: {<<: [{c: 4}, *base], b: 5}\nlist: [*base]"
    base = {"a": 1, "b": [2]}
    assert parse(text, "x") == {
        "base": base, "other": {"a": 3, "b": [2]}, "both": {"c": 4, "a": 1, "b": 5}, "list": [base],
    }  # fmt: skip
    assert parse(text, "x") == yaml.safe_load(text)


def test_an_alias_of_what_it_stands_in_ends():
    with pytest.raises(InputError, match=r"levels|words"):
        parse("a: &a [*a]", "x")


def test_a_small_file_of_aliases_takes_no_time(tmp_path):
    """Ten levels of ten aliases: 0.4 KB that would be ten thousand million words."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 11)]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="more than 131072 words"):
        read(tmp_path / "laughs.yaml")


@pytest.mark.parametrize(
    "content", [b"a: " + b"x" * 2**21, b"[" * 60 + b"]" * 60, b"a: {" * 5000, b"\xff\xfe", b"a: \x00"]
)
def test_files_without_end_are_one_message(tmp_path, content):
    (tmp_path / "large.yaml").write_bytes(content)
    with pytest.raises(InputError) as error:
        read(tmp_path / "large.yaml")
    assert len(str(error.value)) < 400 + len(str(tmp_path))


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126)) | st.from_regex(
    r"[-+]?[0-9]{1,3}[.]?[0-9]?([eE][-+]?[0-9]{1,3})?", fullmatch=True
)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**62), 2**62) | TEXT | st.floats(-1e18, 1e18),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)))  # fmt: skip
def test_what_is_written_is_read(value):
    assert parse(text({"value": value}), "x") == {"value": value}
    assert parse(text({"value": value}, width=1 << 20, default_flow_style=True), "x") == {"value": value}


def test_a_power_of_ten_is_a_number_and_quotes_make_a_text():
    """YAML 1.1 takes 1e-3, without a point, for a text."""
    assert parse('[1e-3, 1E5, -2e+1, "1e-3", e3]', "here") == [0.001, 1e5, -20.0, "1e-3", "e3"]
    with pytest.raises(InputError, match="below 2"):
        parse("1e400", "here")
