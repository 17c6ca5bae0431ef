"""`neuralfuse sensitivity`: which layers and bits low voltage hurts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuralfuse.cli.study import Out, Quiet, StudyFile, WorkersOption
from neuralfuse.cli.tables import print_line

if TYPE_CHECKING:
    from neuralfuse.study.folder import StudyFolder
    from neuralfuse.study.making import Say
    from neuralfuse.sweep.executors import Workers


def sensitivity(
    study: StudyFile,
    out: Out,
    voltage: Annotated[
        float | None, typer.Option(help="Weight-SRAM supply in the curve's unit; default the study's lowest.")
    ] = None,
    cost_limit: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            help="Also choose which layers keep how many top bits at nominal voltage, so that the others hurt least and"
            " so much of the weight-SRAM energy is saved.",
        ),
    ] = None,
    workers: WorkersOption = None,
    quiet: Quiet = False,
) -> None:
    """Accuracy lost to the faults of one layer, or of one bit position, at a time: table and figures.

    Every evaluation chip of the study, unprotected, on its first accelerator and structure. Networks that DIR has
    already are used; DIR may be that of a sweep. With --cost-limit also a protection of single layers, chosen on
    training chips and training images, so that the study's own chips may measure it.
    """
    from neuralfuse.analysis import hardening
    from neuralfuse.analysis.sensitivity import supply
    from neuralfuse.study import variants
    from neuralfuse.sweep.executors import choose
    from sram.progress import steps

    chosen = choose(workers)
    studies = variants.claim(study, out).values()
    supplies = [supply(folder.study, voltage) for folder in studies]  # refused before anything is trained
    if cost_limit is not None:
        for folder, at in zip(studies, supplies, strict=True):
            hardening.budget(folder.study, at, cost_limit / 100)
            hardening.check_layers(folder.study, cost_limit / 100)
    with steps(quiet) as say:
        made = []
        for folder, at in zip(studies, supplies, strict=True):
            folder = _with_own_protections(folder)
            made.append(_one(folder, at, chosen, say))
            if cost_limit is not None:
                made.append(_harden(folder, at, cost_limit / 100, chosen, say))
    for path in (path for paths in made for path in paths):
        print_line(path)


def _with_own_protections(folder: "StudyFolder") -> "StudyFolder":
    """Protections are not looked at: those that the folder has stay, and none is trained for this."""
    from neuralfuse.study.config import ProtectionConfig
    from neuralfuse.study.folder import StudyFolder

    there = StudyFolder.open(folder.path).study.protections if folder.claimed else (ProtectionConfig(name="none"),)
    return StudyFolder(folder.path, folder.study.model_copy(update={"protections": there}))


def _one(folder: "StudyFolder", voltage: float, workers: "Workers", say: "Say") -> list[Path]:
    """Table and figures of one study; the files written."""
    from neuralfuse.analysis.sensitivity import measure
    from neuralfuse.report import plots
    from neuralfuse.results.tables import to_csv
    from neuralfuse.study.file_names import slug
    from neuralfuse.study.prepare import prepare
    from sram.files import write_atomic

    prepare(folder, say)
    table = measure(folder, voltage, workers, say(f"sensitivity ({workers.label})"))
    written = [write_atomic(folder.path / "sensitivity.csv", to_csv(table))]
    unit = folder.study.curve.unit
    for name, rows in table.groupby("network", sort=False):
        written += plots.save(
            plots.sensitivity(rows, unit, folder.scale), folder.path / "plots", f"sensitivity-{slug(name)}"
        )
    return written


def _harden(folder: "StudyFolder", voltage: float, saving: float, workers: "Workers", say: "Say") -> list[Path]:
    """Table of the layers to harden in one prepared folder, and what a study would call it; the files written."""
    from neuralfuse.analysis import hardening
    from neuralfuse.results.tables import to_csv
    from sram.files import write_atomic

    table = hardening.measure(folder, voltage, saving, workers, say(f"hardening ({workers.label})"))
    written = write_atomic(folder.path / "hardening.csv", to_csv(table))
    for network, rows in table.groupby("network", sort=False):
        text = hardening.protection(dict(zip(rows.layer, rows.hardened_bits, strict=True)))
        print_line(f"{network}, at least {100 * saving:g}% saved at {voltage:g}; a study's protection:")
        print_line(f'  - {{name: hardened by layer, sram: ["{text}"]}}')
    return [written]
