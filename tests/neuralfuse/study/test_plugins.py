"""Do the sources of protections and datasets of other packages count in the hash of what a row is about?"""

from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from tests.plugin_package import install

SOURCE = """
from neuralfuse.data import load
from sram.protection import Boost

def boosted(argument, layout):
    return Boost(0.03)

def digits(root):
    found = load("digits")
    return [part.numpy() for part in (found.train_x, found.train_y, found.test_x, found.test_y)]
"""


def test_a_changed_source_is_another_point(tmp_path, monkeypatch):
    source = install(
        tmp_path, monkeypatch, "own_boost", SOURCE, {"neuralfuse.protections": {"own": "own_boost:boosted"}}
    )

    def setups(dataset):
        content = {"name": "s", "dataset": {"name": dataset}, "networks": [{"name": "resnet8"}], "voltages": [0.8]}
        study = parse_study(content | {"protections": ["boost:0.03", "own", "own_boost:boosted"]}, "here")
        return [point.setup for point in points_of(StudyFolder(tmp_path / "out", study))][:3]

    before, before_with_data = setups("digits"), setups("own_boost:digits")
    assert before == setups("digits")
    source.write_text(SOURCE + "# changed\n")
    after, after_with_data = setups("digits"), setups("own_boost:digits")
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]
    assert not set(before_with_data) & set(after_with_data)
