"""Do the keys that say what a word is mean what they say, and is what does not go together one message?"""

from typing import get_args

import pytest
import yaml

from neuralfuse.quantized.formats import WIDTHS, WordFormat
from neuralfuse.study.check import check
from neuralfuse.study.config import Format
from neuralfuse.study.files import dump_study, parse_study
from sram.errors import InputError


def study(sram=None, **network):
    given = {"name": "words", "networks": [{"name": "resnet8", **network}], "voltages": [0.8], "sram": sram or {}}
    return parse_study(given, "here")


def test_every_format_has_a_key_of_its_name_and_a_width():
    assert list(get_args(Format)) == list(WIDTHS)
    for name, bits in WIDTHS.items():
        config = study(format=name).networks[0]
        assert config.words == WordFormat(name=name)
        assert config.bits == bits
        again = parse_study(yaml.safe_load(dump_study(study(format=name))), "again")
        assert again.networks[0] == config


def test_integers_are_hashed_as_before():
    assert study().networks[0].given() == {"name": "resnet8"}
    assert study(group=32, bits=4).networks[0].given() == {"name": "resnet8", "bits": 4, "group": 32}
    assert study(format="bf16").networks[0].given() == {"name": "resnet8", "bits": 16, "format": "bf16"}


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"bits": 9}, "bits 9: 2 to 8"),
        ({"format": "bf16", "bits": 8}, "bits 8: 16 with format bf16"),
        ({"format": "fp8_e4m3", "per_channel": True, "group": 32}, "none with per_channel"),
        ({"format": "mxfp4", "group": 16}, "none with format mxfp4"),
        ({"format": "bf16", "per_channel": True}, "none with format bf16"),
        ({"format": "fp16"}, "bf16"),
        ({"group": 32, "activations": "int8"}, "activations int8: not with group"),
        ({"format": "fp8_e5m2", "activations": "int8"}, "activations int8: not with format"),
        ({"group": 32, "training": {"objective": {"random_bit_errors": {"flip_rate": 0.01}}}}, "random_bit_errors"),
    ],
)
def test_what_does_not_go_together_is_one_message(network, says):
    with pytest.raises(InputError, match=says):
        study(**network)


@pytest.mark.parametrize("sram", [{"schedule": "paper"}, {"word_bits": 8, "columns": 64}])
def test_words_wider_than_their_place_are_refused_before_anything_is_trained(sram):
    with pytest.raises(InputError, match=r"networks\.resnet8\.bits"):
        check(study(sram, format="bf16", options={"width": 4}))
