"""What goes with a study's task: its dataset, its metric, and what was made for images and classes alone."""

from torch import Tensor

from neuralfuse.quantized.metric import METRICS, metric
from neuralfuse.results.scale import ACCURACY
from neuralfuse.study.config import AdaptiveConfig, NeuralFuseConfig, StudyConfig
from neuralfuse.study.data import Kind, kind_of, test_set
from simulator.readers.read import Integers
from sram.errors import InputError

ONE_CLASS = ("balanced_accuracy", "auc")  # metrics of items of a class each
CLASSES = ("accuracy", "top5", "bits", *ONE_CLASS)  # of targets that are classes


def check_task(study: StudyConfig) -> None:
    """Refuse a metric that the dataset's targets have not, and what needs images, or a class each. InputError."""
    kind = kind_of(study.dataset)
    _check_metric(study)
    counted = kind.are_labelled and study.metric == ACCURACY.name
    if study.adaptive:
        _check_goals(study, study.adaptive, counted)
    if study.dataset.mean is not None and not kind.are_images:
        raise InputError("study", "dataset.mean", list(study.dataset.mean), f"none: {_of(study)} are no images")
    if (how := study.dataset.corruption) is not None and not kind.are_images:
        raise InputError("study", "dataset.corruption", how.kind, f"none: {_of(study)} are no images")
    for protection in study.protections:
        key = f"protections.{protection.name}"
        for use in ("fused", "cascade"):
            if getattr(protection, use) is not None and not counted:
                allowed = (
                    f"none with the metric {study.metric} of {_of(study)}: it weighs classes of which one is right"
                )
                raise InputError("study", f"{key}.{use}", protection.second, allowed)
        if protection.neuralfuse is not None:
            _check_transform(study, f"{key}.neuralfuse", protection.neuralfuse, kind)
    for network in study.networks:
        key = f"networks.{network.name}"
        if network.activations != "float" and not kind.are_images:
            raise InputError("study", f"{key}.activations", network.activations, f"float: {_of(study)} are no images")
        if network.training.phases and not kind.are_images:
            raise InputError("study", f"{key}.training.phases", network.training.phases, "none: sizes are of images")
        if "adversarial" in str(network.training.objective) and not (kind.are_images and kind.are_labelled):
            raise InputError("study", f"{key}.training.objective", "adversarial", "another: it moves pixels of images")


def _check_metric(study: StudyConfig) -> None:
    """Refuse a metric that there is not, or that the dataset's targets have not."""
    kind = kind_of(study.dataset)
    metric(study.metric)
    if study.metric in METRICS and (study.metric in CLASSES) != kind.are_classes:
        fit = [name for name in METRICS if (name in CLASSES) == kind.are_classes]
        targets = "classes" if kind.are_classes else "numbers"
        raise InputError("study", "metric", study.metric, f"{' or '.join(fit)}: the targets are {targets}")
    if study.metric in ONE_CLASS and not kind.are_labelled:
        raise InputError("study", "metric", study.metric, f"another: {_of(study)} have several targets each")
    if study.metric == "top5" and kind.classes <= 5:
        raise InputError("study", "metric", study.metric, f"another: {_of(study)} are of {kind.classes} classes")


def check_counted(study: StudyConfig) -> None:
    """Refuse a task whose answers are not right or wrong, for what is sized by their number. InputError."""
    if study.metric != ACCURACY.name or not kind_of(study.dataset).are_labelled:
        allowed = "accuracy, of items of a class each: the search is sized by right and wrong answers"
        raise InputError("study", "metric", study.metric, allowed)


def _of(study: StudyConfig) -> str:
    return f"the items of {study.dataset.name}"


def check_answers(study: StudyConfig, key: str, answers: object) -> None:
    """Refuse what a network, key `key` of the study, gives for the first test items where no metric can score it."""
    kind = kind_of(study.dataset)
    shape = list(kind.output_shape)
    if not isinstance(answers, Tensor):
        several = isinstance(answers, tuple | list | dict)
        allowed = f"one tensor [images, {', '.join(map(str, shape))}]" + "; `output` says which" * several
        raise InputError("study", f"{key} output", f"a {type(answers).__name__}", allowed)
    if study.metric in METRICS:
        found = list(answers.shape[1:])
        if found != shape and not (not kind.are_classes and found == [*shape, 1]):
            what = f": {study.dataset.name} has {shape[-1]} classes" if study.metric in CLASSES else ""
            allowed = f"one tensor [images, {', '.join(map(str, shape))}]{what}"
            raise InputError("study", f"{key} output", found, allowed)
        return
    try:
        metric(study.metric)(answers, test_set(study.dataset)[1][: len(answers)])
    except InputError:
        raise
    except Exception as error:  # of code of anybody's
        reason = f"{type(error).__name__}: {error}"
        raise InputError("study", f"metric {study.metric}", reason, f"one that scores {key}") from error


def _check_goals(study: StudyConfig, adaptive: AdaptiveConfig, counted: bool) -> None:
    """Refuse intervals of samples, which are sized by right and wrong answers, and of gains over nothing."""
    for goal in ("half_width_points", "gain_half_width_points"):
        narrow = getattr(adaptive, goal)
        if narrow is not None and not counted:
            allowed = f"none with the metric {study.metric} of {_of(study)}"
            raise InputError("study", f"adaptive.{goal}", narrow, allowed)
    if (narrow := adaptive.gain_half_width_points) is None:
        return
    for network in study.networks:
        names = [protection.name for protection in study.protections_of(network.name)]
        if "none" not in names or len(names) < 2:
            allowed = f"only with `none` and another protection before {network.name}; it has {', '.join(names)}"
            raise InputError("study", "adaptive.gain_half_width_points", narrow, allowed)


def _check_transform(study: StudyConfig, key: str, fuse: NeuralFuseConfig, kind: Kind) -> None:
    """Refuse a transform of what is neither images nor features of a class each, and stages that are for images."""
    if not kind.are_labelled or kind.input_names or isinstance(kind.input_shape, Integers):
        allowed = f"none: {_of(study)} are no images or features of a class each"
        raise InputError("study", key, fuse.generator, allowed)
    if not kind.are_images and fuse.training is not None and not fuse.training.one_stage:
        staged = fuse.training.class_steps, fuse.training.pattern_steps
        allowed = f"0, 0: {_of(study)} are no images to paint on"
        raise InputError("study", f"{key}.training: class_steps, pattern_steps", staged, allowed)
