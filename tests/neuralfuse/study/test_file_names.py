"""Is every name a file of its own, inside its folder?"""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from neuralfuse.study.file_names import generator_file, slug

names = st.text() | st.text(alphabet="./\\-+~:aA\0 ")
pairs = st.tuples(names, names)


@given(names)
@example("a/../../x")
@example("..")
@example("")
@example("con.x")
@example("n" * 5000)
def test_a_name_is_one_file_in_its_folder(name):
    for made in (slug(name), slug("net", name), slug(name, "net"), generator_file(["net"], name)):
        assert re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9_.+~-]{0,240}", made)
        assert not made.endswith(".")
    assert slug(name).partition(".")[0].lower() not in {"con", "nul", "aux", "prn", "com1", "lpt9"}


@given(pairs, pairs)
@example(("a", "b-c"), ("a-b", "c"))
def test_names_that_differ_are_files_that_differ(one, other):
    if one != other:
        assert slug(*one) != slug(*other)
        assert generator_file([one[0]], one[1]) != generator_file([other[0]], other[1])
    if one[0] != other[0]:
        assert slug(one[0]) != slug(other[0])


def test_ordinary_names_stay():
    for name in ("resnet18-imagenet", "w4.5_x+y", "ConvS"):
        assert slug(name) == name
    assert slug("resnet18-imagenet", "ConvS") == "resnet18-imagenet-ConvS"
