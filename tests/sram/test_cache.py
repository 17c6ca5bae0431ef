"""Is what is compiled kept, loaded from nobody else's hands, and done without where there is no place for it?"""

import os
import subprocess
import sys

import pytest

from sram import jit
from sram.cache import cache_folder, trusted
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes of POSIX")

CODE = """
import numba
from sram import random_kernels
found = [one for one in vars(random_kernels).values() if isinstance(one, numba.core.registry.CPUDispatcher)]
print(len(found) > 3, {str(one.stats.cache_path) for one in found})
"""


def kernels(**environment):
    """(are there some?, where they are cached) of a module of kernels in a fresh process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_kernels_are_cached_beside_their_source():
    assert kernels() == f"True {{'{ROOT}/sram/__pycache__'}}"


def test_without_a_place_kernels_are_compiled_for_the_run():
    assert kernels(NUMBA_CACHE_LOCATOR_CLASSES="ZipCacheLocator") == "True {'None'}"


@pytest.mark.parametrize(("mode", "loaded"), [(0o700, True), (0o755, True), (0o777, False)])
def test_a_cache_that_others_may_write_is_not_used(tmp_path, mode, loaded):
    kernels(NUMBA_CACHE_DIR=str(tmp_path))
    (folder,) = tmp_path.iterdir()
    folder.chmod(mode)
    assert kernels(NUMBA_CACHE_DIR=str(tmp_path)) == f"True {{'{folder if loaded else None}'}}"


def test_a_planted_file_keeps_a_cache_from_being_used(tmp_path):
    jit._trusted_folder.cache_clear()
    tmp_path.chmod(0o755)
    (tmp_path / "mine.nbi").write_bytes(b"")
    (tmp_path / "mine.nbi.tmp.1").write_bytes(b"")
    (tmp_path / "mine.nbi.tmp.1").chmod(0o666)  # is not loaded
    assert jit._trusted_folder(str(tmp_path), jit.__file__)
    jit._trusted_folder.cache_clear()
    (tmp_path / "planted.nbc").write_bytes(b"")
    (tmp_path / "planted.nbc").chmod(0o666)
    assert not jit._trusted_folder(str(tmp_path), jit.__file__)
    jit._trusted_folder.cache_clear()


def test_another_user_s_file_is_not_trusted_and_the_owner_of_the_source_is(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    planted, source = tmp_path / "planted.so", tmp_path / "source.py"
    planted.write_bytes(b"")
    source.write_bytes(b"")
    assert trusted(planted, source)
    os.chown(planted, 12345, 12345)
    assert not trusted(planted, source)
    os.chown(source, 12345, 12345)
    assert trusted(planted, source)


def test_a_group_s_file_is_trusted_as_far_as_the_source_is(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    cached, source = tmp_path / "cached", tmp_path / "source.py"
    for path in (cached, source):
        path.write_bytes(b"")
        os.chown(path, 0, 100)
    source.chmod(0o644)
    cached.chmod(0o664)
    assert not trusted(cached, source)
    source.chmod(0o664)
    assert trusted(cached, source)


def test_nothing_is_not_trusted(tmp_path):
    assert not trusted(tmp_path / "none")


def test_a_cache_without_a_home_is_nowhere(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert str(cache_folder()).startswith(os.devnull)
