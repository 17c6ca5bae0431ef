"""The paper's printed accuracies, each with the study, variant and row that stands against it."""

from dataclasses import dataclass

from benchmarks.paper.energy import read
from neuralfuse.transforms import generators

DATASETS = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "GTSRB": "gtsrb", "ImageNet-10": "imagenet10"}


@dataclass(frozen=True)
class Anchor:
    """One printed mean accuracy (%) over the paper's 10 fault maps, and its std where it has one."""

    study: str  # name of the file beside this one
    variant: str
    network: str
    protection: str
    rate: float  # cell fault rate at which it is measured
    mean: float
    std: float | None


def anchors() -> list[Anchor]:
    """Every accuracy under faults of Tables 1, 10 to 16 and 16 to 24, unprotected networks first."""
    return [*_relaxed(), *_transfer(), *_reduced(), *_lambda(), *_universal()]


def _relaxed() -> list[Anchor]:
    found = []
    for row in read("paper_relaxed_access.csv"):
        where = "relaxed_access", DATASETS[row["dataset"]], row["base"].lower()
        rate = float(row["ber_pct"]) / 100
        found.append(Anchor(*where, "none", rate, float(row["PA"]), float(row["PA_std"])))
        name = f"{row['generator']} {percent(rate)}"
        found.append(Anchor(*where, name, rate, float(row["PA_NF"]), float(row["PA_NF_std"])))
    return list(dict.fromkeys(found))


def _transfer() -> list[Anchor]:
    found = []
    for row in read("paper_transfer.csv"):
        trained, rate = float(row["train_ber_pct"]) / 100, float(row["test_ber_pct"]) / 100
        where = "transfer", DATASETS[row["dataset"]], row["target"].lower()
        for generator in ("ConvL", "UNetL"):
            name = f"{generator} {percent(trained)} on {row['source'].lower()}"
            mean, std = float(row[f"{generator}_PA_NF"]), float(row[f"{generator}_PA_NF_std"])
            found.append(Anchor(*where, name, rate, mean, std))
    return found


def _reduced() -> list[Anchor]:
    found = []
    for row in read("paper_reduced_precision.csv"):
        network = f"{row['base'].lower()}-{float(row['bits']):.0f}bit"
        where = "reduced_precision", DATASETS[row["dataset"]], network
        found.append(Anchor(*where, "none", 0.005, float(row["PA"]), float(row["PA_std"])))
        for generator in ("ConvL", "UNetL"):
            mean, std = float(row[f"{generator}_PA_NF"]), float(row[f"{generator}_std"])
            found.append(Anchor(*where, f"{generator} 0.5%", 0.005, mean, std))
    return found


def _lambda() -> list[Anchor]:
    return [
        Anchor("lambda", "cifar10", row["base"].lower(), f"ConvL lambda {float(row['lambda']):g}", 0.01,
               float(row["PA_NF"]), float(row["PA_NF_std"]))
        for row in read("paper_lambda.csv")
    ]  # fmt: skip


def _universal() -> list[Anchor]:
    found = []
    for row in read("paper_universal_perturbation.csv"):
        rate = float(row["ber_pct"]) / 100
        name = f"universal {percent(rate)}"
        where = "universal_perturbation", "cifar10", row["base"].lower()
        found.append(Anchor(*where, name, rate, float(row["PA_UIP"]), float(row["std"])))
    return found


def efficiency() -> list[tuple[str, str, float, float]]:
    """Table 3: (network, generator, rate, points won back per million generator parameters), CIFAR-10."""
    return [
        (row["base"].lower(), row["generator"], float(row["ber_pct"]) / 100, float(row["paper"]))
        for row in read("paper_efficiency_ratio.csv")
    ]


def million_parameters(generator: str) -> float:
    """Parameters of one of the paper's generators, millions."""
    return sum(p.numel() for p in generators.build(generator).parameters()) / 1e6


def percent(rate: float) -> str:
    """
    >>> percent(0.0035)
    '0.35%'
    """
    return f"{100 * rate:g}%"
