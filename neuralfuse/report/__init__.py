"""What people look at: tables, figures and one self-contained page, made from a results folder alone.

The folder's results.csv, study.yaml and provenance.json are all it takes; no network is run. The package can be called:
`neuralfuse.report(folder)`.
"""

from pathlib import Path

from neuralfuse.report.build import Report, build_report
from neuralfuse.report.wording import choice_cells, headline_lines
from neuralfuse.study import variants
from sram.errors import InputError
from sram.lazy import callable_module

__all__ = ["Report", "build_report", "choice_cells", "headline_lines", "report"]
callable_module(__name__)


def report(folder: str | Path) -> Report:
    """Write the tables, figures and page of one study's results folder; where they lie, and the tables themselves."""
    if "" not in (found := variants.folders(Path(folder))):
        raise InputError(folder, "folder", "variants", "one of " + ", ".join(str(part) for part in found.values()))
    return build_report(folder)
