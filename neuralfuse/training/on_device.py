"""A device in the loop: a transform tuned with the forward pass on the device and the backward pass through the
characterised model of the same chip (straight-through): logits = model(x) + (device(x) - model(x)), with no gradient
through the bracket. What needs no model is in `queries`.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from neuralfuse.data import Dataset
from neuralfuse.quantized.on_device import DeviceNetwork, Drifted, set_model
from neuralfuse.quantized.quantize import fake_quantized
from neuralfuse.training.checkpoints import Progress
from neuralfuse.training.fit import fit
from neuralfuse.training.loop import Figures, batch_indices
from neuralfuse.training.settings import CalibrationSettings
from sram.weakcells import FaultMap

CHECK_EVERY = 50  # steps, after which canaries are read again
MOST_DRIFT = 0.25  # of the canaries may have changed
DEFAULTS = CalibrationSettings()


@dataclass(frozen=True)
class Tuned:
    """What a tuning took. `runs` are batches run on the device, `images` the images in them."""

    steps: int
    runs: int
    images: int
    loss: float
    drift_checks: int


def tune(
    on_device: DeviceNetwork,
    fault_map: FaultMap,
    transform: nn.Module,
    data: Dataset,
    settings: CalibrationSettings = DEFAULTS,
    bits: int | None = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuned:
    """Fit an input transform in place to the chip behind `on_device`, at its present voltage, by labels.

    Every CHECK_EVERY steps canaries are re-read: Drifted where more than MOST_DRIFT of them changed. The transform is
    left rounded to `bits`; it in eval mode and the model without faults however the tuning ends.
    """
    faulty, n = on_device.faulty, len(data.train_y)
    before = on_device.runs, on_device.images
    checks = 0

    def step(number: int) -> Figures:
        nonlocal checks
        if number % CHECK_EVERY == 0:
            found, checks = on_device.check(fault_map), checks + 1
            if found.changed > MOST_DRIFT:
                raise Drifted(f"{found.changed:.0%} of the canaries changed; shift {found.shift:+.4f}")
        index = batch_indices(n, min(settings.batch, n), seed, number)
        x, y = data.train_x[index].to(faulty.device), data.train_y[index].to(faulty.device)
        set_model(faulty, fault_map, on_device.voltage)
        with fake_quantized(transform, bits):
            protected = transform(x)
            model = faulty(protected)
            value = F.cross_entropy(model + (on_device(protected) - model).detach(), y)
            value.backward()
        return {"loss": value.item()}

    try:
        loss = fit(transform.train(), settings, step, bits, progress)
    finally:
        faulty.restore()
    return Tuned(settings.steps, on_device.runs - before[0], on_device.images - before[1], loss, checks)
