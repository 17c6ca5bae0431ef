"""Tasks planned, run, and kept. The package can be called: `neuralfuse.sweep(study, out)`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sram.lazy import callable_module

if TYPE_CHECKING:
    import pandas as pd

    from neuralfuse.study.config import StudyConfig

callable_module(__name__)


def sweep(study: StudyConfig | str | Path, out: str | Path, workers: int = 1, quiet: bool = False) -> pd.DataFrame:
    """Run a study in the folder `out`, as `neuralfuse sweep` does: what is there is kept, what is missing is run.

    Parameters
    ----------
    study: a `neuralfuse.Study`, or a study file (YAML), with variants or without.
    out: folder for everything the study makes.
    workers: processes; with more than one, a script calls this below `if __name__ == "__main__":`.
    quiet: without progress on stderr.

    Returns
    -------
    The rows of results.csv (docs/reference/columns.md explains the columns); of variants, the joined ones.

    Raises
    ------
    InputError: a mistake in the study, or a folder that is another's.

    What could not be done is a warning, and is tried again by the next call.
    """
    import warnings

    from neuralfuse.results.tables import read_table
    from neuralfuse.study import variants
    from neuralfuse.sweep.executors import choose
    from neuralfuse.sweep.run import claimed, run_study
    from sram.progress import steps

    chosen, studies = choose(workers), claimed(study, Path(out))
    with steps(quiet) as say:
        for folder in studies.values():
            for failure in run_study(folder, chosen, say).failures:
                warnings.warn(f"{folder.path}: {len(failure.tasks)} tasks not done: {failure.reason}", stacklevel=2)
    variants.join(Path(out))
    return read_table(Path(out) / "results.csv")
