"""`neuralfuse rank`."""

from typing import TYPE_CHECKING, Annotated

import typer

from neuralfuse.cli.study import Out, Quiet, StudyFile
from neuralfuse.cli.tables import print_frame, print_line

if TYPE_CHECKING:
    from neuralfuse.analysis.rank import Ranked

Top = Annotated[int, typer.Option(min=1, help="Chips of each setting in the table; rank.csv has all.")]


def rank(study: StudyFile, out: Out, top: Top = 5, quiet: Quiet = False) -> None:
    """Which chips of a lot to look at first, by their weak cells and the network's sensitivities, without an image."""
    from neuralfuse.analysis.rank import rank_chips
    from neuralfuse.sweep.run import claimed
    from sram.progress import steps

    for folder in claimed(study, out).values():
        with steps(quiet) as say:
            found = rank_chips(folder, say)
        _print(found, top, folder.study.curve.unit)
        print_line(f"table: {folder.path / 'rank.csv'}")


def _print(found: "Ranked", top: int, unit: str) -> None:
    shown = found.chips[found.chips.place <= top].dropna(axis="columns", how="all")
    alike = [name for name in shown.columns if name not in ("chip", "place", "voltage") and shown[name].nunique() == 1]
    print_frame(shown.drop(columns=alike), f"the {top} most doubtful chips of each setting; supplies in {unit}")
    for line in found.lines:
        print_line(line)
