"""`neuralfuse sensitivity`: which layers and bits low voltage hurts."""

from pathlib import Path
from typing import Annotated

import typer

from neuralfuse.cli.study import Out, WorkersOption


def sensitivity(
    study: Annotated[Path, typer.Argument(help="Study file (YAML).", metavar="STUDY.yaml")],
    out: Out,
    voltage: Annotated[
        float | None, typer.Option(help="Weight-SRAM supply in the curve's unit; default the study's lowest.")
    ] = None,
    workers: WorkersOption = None,
) -> None:
    """Accuracy lost to the faults of one layer, or of one bit position, at a time: table and figures.

    Every evaluation chip of the study, unprotected, on its first accelerator and structure. Networks that DIR has
    already are used; DIR may be that of a sweep.
    """
    from neuralfuse.cli.progress import steps
    from neuralfuse.sensitivity import supply
    from neuralfuse.sweep import variants
    from neuralfuse.sweep.executors import choose

    chosen = choose(workers)
    studies = variants.claim(study, out).values()
    supplies = [supply(config, voltage) for config, _ in studies]  # refused before anything is trained
    with steps() as say:
        made = [_one(config, folder, at, chosen, say) for (config, folder), at in zip(studies, supplies, strict=True)]
    for path in (path for paths in made for path in paths):
        print(path)


def _one(study, folder: Path, voltage: float, workers, say) -> list[Path]:
    """Table and figures of one study; the files written."""
    from neuralfuse import plots
    from neuralfuse.config import ProtectionConfig, load_study
    from neuralfuse.sensitivity import measure
    from neuralfuse.sweep.prepare import prepare
    from sram import failure
    from sram.files import write_atomic

    # Protections are not looked at: those that the folder has stay, and none is trained for this.
    there = folder / "study.yaml"
    protections = load_study(there).protections if there.is_file() else (ProtectionConfig(name="none"),)
    study = study.model_copy(update={"protections": protections})
    prepare(study, folder, say)
    table = measure(study, folder, voltage, workers, say(f"sensitivity ({workers.label})"))
    written = [write_atomic(folder / "sensitivity.csv", table.to_csv(index=False))]
    unit = failure.curve(study.sram.curve).unit
    for name, rows in table.groupby("network", sort=False):
        written += plots.save(plots.sensitivity(rows, unit), folder / "plots", f"sensitivity-{name}")
    return written
