"""Are protections of other packages found, by entry point and by import path, and only where they are needed?"""

import importlib.metadata

import pytest

from sram import faultmap
from sram.errors import InputError
from sram.geometry import Geometry
from sram.protection import check_protection, parse, spec
from tests.plugin_package import install

SOURCE = '''
from dataclasses import dataclass
from sram.protection import Overhead, Protection, Stage, repair


@dataclass(frozen=True)
class Upsized(Protection):
    """Cells so much stronger."""

    margin: float
    stage = Stage.ARRAY

    @property
    def spec(self):
        return f"upsized:{self.margin:g}"

    def map(self, fault_map):
        return repair.shifted(fault_map, fault_map.critical_voltage - self.margin, fault_map.voltage_floor)

    def overhead(self, fault_map):
        return Overhead(energy=1.2, source=f"{self.spec}: a guess")


def upsized(argument, layout):
    return Upsized(float(argument))


def nothing(argument, layout):
    return argument
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    entries = {"upsized": "other_cells:upsized", "gone": "other_cells:gone", "nothing": "other_cells:nothing"}
    return install(tmp_path, monkeypatch, "other_cells", SOURCE, {"neuralfuse.protections": entries})


@pytest.mark.parametrize("text", ["upsized:0.03", "other_cells:upsized:0.03"])
def test_a_protection_of_another_package_is_one_like_all_others(package, text):
    made = parse(text)
    check_protection(made)
    chip = faultmap.generate(0, Geometry(banks=8), "ibm14", voltage_floor=0.79)
    assert made.map(chip).count(0.80) == chip.count(0.83)
    assert parse(f"secded72+{text}").spec == "secded72+upsized:0.03"
    assert spec.sources(f"secded72+{text}") == [str(package)]
    assert spec.sources("secded72+boost:0.04") == []


@pytest.mark.parametrize("text", ["gone", "nothing:1", "other_cells:gone", "other_cells:nothing:1", "upsize:1"])
def test_what_is_no_protection_is_refused_by_name(package, text):
    with pytest.raises(InputError) as error:
        parse(text)
    assert text in str(error.value).replace("name = 'gone'", "gone")


def test_an_unknown_name_lists_the_installed_ones(package):
    with pytest.raises(InputError, match=r"secded72, .*upsized.*package\.module:callable"):
        parse("secded")


def test_built_in_names_look_nowhere_else(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: pytest.fail("looked for"))
    parse("secded72+boost:0.04")
