"""An installed package with entry points, for tests: written into a folder that is then on the path."""

import importlib
import sys
from pathlib import Path

from sram import plugins


def install(folder: Path, monkeypatch, name: str, source: str, entry_points: dict[str, dict[str, str]]) -> Path:
    """Module `name` of this source with these {group: {name: module:callable}}; the path of its file."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in entry_points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(plugins, "_opened", {name: None})
    monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return folder / f"{name}.py"
