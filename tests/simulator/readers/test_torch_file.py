"""Is a damaged .pt2 refused in one message, or the network that was written?"""

import io
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from simulator import load
from simulator.readers import torch_file
from sram.errors import InputError


@pytest.fixture(scope="module")
def program() -> bytes:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).eval()
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 1, 8, 8),)), buffer)
    return buffer.getvalue()


def deflated(content: bytes, **changed: bytes) -> bytes:
    """The same archive compressed, members that end so changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, next((c for end, c in changed.items() if name.endswith(end)), old.read(name)))
    return buffer.getvalue()


def test_damaged_bytes_are_refused_or_change_nothing(program, tmp_path, caplog, capfd):
    """Cut, or with some bits turned; a fixed seed. Torch logs no traceback of its own."""
    random, path = np.random.default_rng(0), tmp_path / "net.pt2"
    path.write_bytes(program)
    layers, refused = load(path).layers, 0
    for whole in (program, deflated(program)):
        for turn in range(40):
            damaged = bytearray(whole[: random.integers(len(whole))] if turn % 4 == 0 else whole)
            for place in random.integers(len(damaged), size=turn % 4):
                damaged[place] ^= 1 << random.integers(8)
            path.write_bytes(damaged)
            try:
                assert load(path).layers == layers
            except InputError:
                refused += 1
    assert refused > 40
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("member", ["model.json", "weights_config.json", "constants_config.json"])
def test_json_that_is_too_large_or_too_deep(program, member, tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "MOST_GRAPH", 2**20)
    for content in (b" " * (2**20 + 1), b"[" * 2**20, b'{"config": ' + b"1" * 5000 + b"}"):
        (tmp_path / "net.pt2").write_bytes(deflated(program, **{member: content}))
        with pytest.raises(InputError):
            load(tmp_path / "net.pt2")
