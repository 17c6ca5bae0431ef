"""Does a name in a file import no more than what its reader opened?"""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from sram import plugins
from sram.errors import InputError

CODE = "ran = []\n\n\ndef made(**_):\n    return 3\n"


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    """Nothing is open but the project's own, as in a new process."""
    monkeypatch.setattr(plugins, "_opened", {})
    monkeypatch.setattr(plugins, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_what_is_not_open_is_not_imported_and_the_message_says_which_switch(tmp_path, monkeypatch):
    (tmp_path / "loud.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n\n\ndef made():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)  # installed, but nobody named it
    with pytest.raises(InputError, match=r"--allow-import loud .*allow_imports\('loud'\)"):
        plugins.imported("loud:made", "network")
    assert not (tmp_path / "ran").exists()
    plugins.allow_imports("loud")
    assert plugins.imported("loud:made", "network")() is None
    assert (tmp_path / "ran").exists()


def test_a_package_opens_what_lies_in_it_and_a_module_nothing_above():
    plugins.allow_imports("json.decoder")
    assert plugins.imported("json.decoder:JSONDecoder", "network")
    for closed in ("json:loads", "json.encoder:JSONEncoder", "jsonx:loads"):
        with pytest.raises(InputError, match="--allow-import"):
            plugins.imported(closed, "network")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("torch.hub:load", "--allow-import torch.hub"),
        ("os:system", "--allow-import os"),
        ("__main__:made", "--allow-import __main__"),
        ("simulator.device.rtl.build:subprocess", "a callable that simulator.device.rtl.build defines"),  # a module
        ("neuralfuse.report.figures:partial", "a callable that neuralfuse.report.figures defines"),  # one of functools
        ("neuralfuse.cli:gone", "no attribute 'gone'"),
        ("../x:y", "package.module:callable$"),
        (".x:y", "package.module:callable$"),
        ("x", "package.module:callable$"),
        ("x:y.z", "package.module:callable$"),
        (":", "package.module:callable$"),
    ],
)
def test_only_the_projects_own_is_open_without_a_switch(path, allowed):
    assert callable(plugins.imported("neuralfuse.data.idx:need", "network"))
    with pytest.raises(InputError, match=allowed):
        plugins.imported(path, "network")


def test_a_folder_opens_its_own_files_and_hides_none(tmp_path):
    (tmp_path / "own_networks_of_this_test.py").write_text(CODE)
    (tmp_path / "json.py").write_text(CODE)
    plugins.allow_folder(tmp_path)
    assert plugins.imported("own_networks_of_this_test:made", "network")() == 3
    with pytest.raises(InputError, match="by another name"):
        plugins.imported("json:made", "network")
    with pytest.raises(InputError, match="a callable that own_networks_of_this_test defines"):
        plugins.imported("own_networks_of_this_test:ran", "network")


def test_two_folders_with_one_name_are_not_mixed_up(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "twice_of_this_test.py").write_text(CODE)
    plugins.allow_folder(tmp_path / "a")
    assert plugins.imported("twice_of_this_test:made", "network")
    plugins.allow_folder(tmp_path / "b")
    with pytest.raises(InputError, match="by another name"):
        plugins.imported("twice_of_this_test:made", "network")
    plugins.allow_folder(tmp_path / "a")
    assert plugins.imported("twice_of_this_test:made", "network")


@pytest.mark.parametrize("code", ["raise SystemExit(0)", "def f(", "1 / 0", "import no_such_module"])
def test_a_module_that_breaks_is_one_message(tmp_path, code):
    name = f"broken_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    plugins.allow_folder(tmp_path)
    with pytest.raises(InputError, match="importable"):
        plugins.imported(f"{name}:made", "network")


def test_workers_have_what_their_parent_has(tmp_path):
    (tmp_path / "for_workers_of_this_test.py").write_text(CODE)
    plugins.allow_folder(tmp_path)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(InputError, match="--allow-import for_workers_of_this_test"):
            pool.submit(called, "for_workers_of_this_test:made").result()
        sent = pool.submit(plugins.with_allowed, plugins.allowed(), called, "for_workers_of_this_test:made")
        assert sent.result() == 3


def called(path):
    return plugins.imported(path, "network")()
