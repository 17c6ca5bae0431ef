"""From a study file to a folder that tasks can be run in: networks trained, generators trained, workloads traced,
points named.

Every step is skipped when its result lies in the folder and was made from the same settings; so a run that was
killed goes on, and a finished one starts at once.
"""

from pathlib import Path

import numpy as np

from neuralfuse.quantized import evaluate
from neuralfuse.results.tables import to_csv
from neuralfuse.study.check import check
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.data import kind_of, test_set
from neuralfuse.study.digest import digest
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import Point, points_of
from neuralfuse.study.making import (
    Base,
    Say,
    fresh,
    generator_settings,
    make_generator,
    make_network,
    make_program,
    network_settings,
    transform_settings,
    write_workload,
)
from neuralfuse.study.provenance import layer_table, provenance, rail_table
from neuralfuse.transforms import generators
from neuralfuse.transforms.per_voltage import at, level
from sram.files import write_atomic


def prepare(folder: StudyFolder, say: Say) -> list[Point]:
    """Fill the folder with what tasks need and return the study's grid, in the order of results.csv. One process at a
    time does so in a folder; the next finds everything there."""
    check(folder.study)
    with folder.alone(lambda: say("another process prepares this folder")):
        folder.claim()
        return _prepare(folder, say)


def _prepare(folder: StudyFolder, say: Say) -> list[Point]:
    study = folder.study
    lowest = level(study.curve, study.voltage_floor)
    made = {config.name: (config, make_network(folder, config, say)) for config in study.networks}
    for config in study.networks:
        write_workload(folder, made[config.name][1], network_settings(study, config), config.name)
        if config.activations == "int8":
            make_program(folder, *made[config.name], say)
    for config in study.networks:
        for protection in study.protections_of(config.name):
            if protection.neuralfuse is not None:
                bases = [made[name] for name in protection.neuralfuse.trained_on(config.name)]
                transform = at(make_generator(folder, bases, protection, protection.neuralfuse, say), lowest)
                settings = transform_settings(study, protection.neuralfuse)
                write_workload(folder, transform, settings, config.name, protection.name)
                if protection.neuralfuse.calibrate is None and kind_of(study.dataset).are_images:
                    _show_images(study, transform, folder.images_file(config.name, protection.name))
    points = points_of(folder)
    write_atomic(folder.layers_file, to_csv(layer_table(folder)))
    write_atomic(folder.energy_file, to_csv(rail_table(folder)))
    folder.write_provenance(provenance(folder, points))
    return points


def trainings_to_do(folder: StudyFolder) -> list[str]:
    """Names of what `prepare` would still have to train."""
    study = folder.study
    made: dict[str, Base] = {}
    missing: list[str] = []
    trained_once: set[str] = set()
    for config in study.networks:
        settings = network_settings(study, config)
        if fresh(folder.network_file(config.name), settings):
            made[config.name] = config, folder.network(config.name)
        elif digest(settings) not in trained_once:  # else it is the network of another name
            missing.append(config.name)
            trained_once.add(digest(settings))
    for config in study.networks:
        for protection in study.protections_of(config.name):
            fuse = protection.neuralfuse
            if fuse is None or fuse.starts_untrained:
                continue
            names = fuse.trained_on(config.name)
            path = folder.generator_file(config.name, protection)
            bases = [made[name] for name in names if name in made]
            if len(bases) < len(names) or not fresh(path, generator_settings(study, bases, fuse)):
                missing.append(f"{protection.name} for {', '.join(names)}")
    return list(dict.fromkeys(missing))


def _show_images(study: StudyConfig, transform: generators.NeuralFuse, path: Path) -> None:
    """Eight test images and what the generator makes of them, for the page to draw."""
    images, labels = test_set(study.dataset)
    shown = slice(None, None, max(1, len(images) // 8))  # spread: files may be sorted by class
    original = images[shown][:8]
    changed = evaluate.transform(transform, original).numpy()
    arrays = {"original": original.numpy(), "changed": changed, "labels": labels[shown][:8].numpy()}
    write_atomic(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
