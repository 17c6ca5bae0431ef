"""Is a built chip loaded from a cache that only this user may write?"""

import os

import pytest

from simulator.device.rtl import build

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes of POSIX")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "neuralfuse" / "rtl"


def made(scratch):
    (scratch / "made").write_bytes(b"made")
    return scratch / "made"


def test_a_library_is_made_once_and_private(folder):
    path = build._cached("x.so", made)
    assert path == folder / "x.so"
    assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o700, 0o700)
    path.write_bytes(b"kept")
    assert build._cached("x.so", made).read_bytes() == b"kept"


def test_a_planted_library_is_made_anew(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "x.so").write_bytes(b"planted")
    (folder / "x.so").chmod(0o666)
    assert build._cached("x.so", made).read_bytes() == b"made"


def test_a_cache_that_others_may_write_is_not_used(folder):
    folder.mkdir(parents=True)
    (folder / "x.so").write_bytes(b"planted")
    folder.chmod(0o777)
    path = build._cached("x.so", made)
    assert path.read_bytes() == b"made"
    assert folder not in path.parents
    assert (folder / "x.so").read_bytes() == b"planted"


def test_without_a_place_a_chip_is_built_for_the_run(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    assert build._cached("y.so", made).read_bytes() == b"made"
