"""Are the mistakes in users' files told with the file, the key, the value and what is allowed?"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.userfile import mapping, record, whole
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
