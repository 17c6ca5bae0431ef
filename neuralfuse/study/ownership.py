"""Whose a folder is: results of two studies never mix."""

from pathlib import Path

from neuralfuse.study.config import StudyConfig
from neuralfuse.study.files import dump_study, load_study
from sram.errors import InputError
from sram.files import write_atomic

_MAY_GROW = ("voltages", "chips", "protections", "adaptive", "batch_size")


def study_of(folder: Path) -> StudyConfig:
    """The study that a folder was filled by; InputError for any other folder."""
    path = folder / "study.yaml"
    if not path.is_file():
        raise InputError(folder, "folder", path.name + " missing", "one that a study was trained or run in")
    return load_study(path)


def check_same(study: StudyConfig, other: StudyConfig, folder: Path) -> None:
    """Refuse `study` where `other`, of this folder, is about something else."""
    if other.identity() != study.identity():
        mine, theirs = study.model_dump(mode="json"), other.model_dump(mode="json")
        key = next(k for k in mine if k not in _MAY_GROW and mine[k] != theirs[k])
        raise InputError(folder, key, mine[key], f"{theirs[key]!r}, of the study {other.name!r} in this folder")


def check_empty(folder: Path) -> None:
    """Refuse a folder with something in it that no study has put there."""
    file = next((place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()), None)
    if file is not None:
        raise InputError(folder, "--out", str(file), "a folder; this is a file")
    if folder.is_dir() and any(folder.iterdir()):
        names = ", ".join(sorted(p.name for p in folder.iterdir())[:3])
        raise InputError(folder, "--out", names, "a new or empty folder, or one that a study was run in")


def check_folder(study: StudyConfig, folder: Path) -> None:
    """Refuse a folder that is neither this study's nor new. Writes nothing."""
    if (folder / "study.yaml").is_file():
        check_same(study, study_of(folder), folder)
    else:
        check_empty(folder)


def claim(study: StudyConfig, folder: Path) -> None:
    """Make `folder` this study's, or refuse it. Writes study.yaml."""
    check_folder(study, folder)
    write_atomic(folder / "study.yaml", dump_study(study))
