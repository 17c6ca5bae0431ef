"""Is what is written whole, on disk, and where it was asked for, whatever lies there?"""

import os
import stat
import threading

import numpy as np
import pytest

from sram.errors import InputError
from sram.files import write_atomic

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and devices of POSIX")


def kind(path):
    return stat.S_IFMT(os.lstat(path).st_mode)


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_the_target_of_a_dangling_link_is_made(tmp_path):
    (tmp_path / "link").symlink_to("there/target")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "target").read_bytes() == b"new"


def test_a_link_to_itself_is_an_error_and_stays(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomic(tmp_path / "loop", "x")
    assert (tmp_path / "loop").is_symlink()


def test_a_pipe_is_written_to(tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    for _ in range(500):  # until the reader is there
        try:
            write_atomic(pipe, lambda file: np.savez(file, a=np.arange(99999)))  # seeks, and is longer than a pipe
            break
        except InputError:
            threading.Event().wait(0.01)
    reader.join(20)
    assert kind(pipe) == stat.S_IFIFO
    assert got[0][:2] == b"PK"
    assert len(got[0]) > 8 * 99999


def test_a_pipe_that_nobody_reads_is_refused_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: file = 'a pipe or socket' is not allowed; allowed: one that is being"):
        write_atomic(tmp_path / "pipe", "x")
    assert kind(tmp_path / "pipe") == stat.S_IFIFO


def test_a_device_stays(tmp_path):
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        null.write_text("")
    except PermissionError:
        pytest.skip("only root makes device nodes, and not everywhere")
    write_atomic(null, "x")
    assert kind(null) == stat.S_IFCHR


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path, "x")
    assert tmp_path.is_dir()


def test_the_longest_name_that_a_file_system_takes(tmp_path):
    for name in ("n" * 255, "é" * 127):
        assert write_atomic(tmp_path / name, "x").read_text() == "x"


def test_the_entry_of_a_new_file_is_on_disk_after_its_content(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace

    def synced(handle):
        calls.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    def replaced(old, new):
        calls.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_atomic(tmp_path / "a" / "b" / "file", "x")
    folder = str(tmp_path)
    assert set(calls[:2]) == {folder, f"{folder}/a"}
    assert calls[2].endswith(".part")
    assert calls[3:] == ["rename", f"{folder}/a/b"]
