"""What a decoder takes on an accelerator: the prompt, and the tokens that it makes, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from neuralfuse.analysis.simulate import Simulation, simulate
from simulator.accelerator import Accelerator
from simulator.accelerator import accelerator as accelerator_named
from simulator.decoder import Decoder, decoder
from simulator.energy import SCOPES
from simulator.figures import EnergyTable, energy_table
from sram.errors import InputError

MOST_TOKENS = 1 << 16  # made, each of which is a run of its own


@dataclass(frozen=True)
class Generation:
    """The run of the prompt, and that of each token made; `frame` sums them up by phase."""

    decoder: Decoder
    prompt: int
    batch: int
    prefill: Simulation
    steps: tuple[Simulation, ...]

    @property
    def cache_bytes(self) -> float:
        """Of keys and values, when the last token is made."""
        tokens = self.prompt + len(self.steps)
        return self.decoder.cache_elements * tokens * self.batch * self.prefill.counts.accelerator.ofmap_bits / 8

    def frame(self) -> pd.DataFrame:
        """A row for prefill and one for decode: tokens of all sequences, cycles, seconds, tokens a second, bytes from
        and to DRAM a token, and uJ a token at each scope. Tokens are those of the prompt, and those made."""
        rows = []
        for phase, runs, each in (("prefill", (self.prefill,), self.prompt), ("decode", self.steps, 1)):
            tokens = each * len(runs) * self.batch
            seconds = sum(run.energy.seconds for run in runs) * self.batch
            moved = sum(float(run.counts.layers[n].sum()) for run in runs for n in _dram(run))
            row = {
                "phase": phase,
                "tokens": tokens,
                "macs": sum(run.counts.workload.macs for run in runs),
                "cycles": sum(run.counts.cycles for run in runs),
                "seconds": seconds,
                "tokens_per_s": tokens / seconds,
                "dram_bytes_per_token": moved / tokens,
            }
            for scope in SCOPES:
                row[f"{scope}_uj_per_token"] = (
                    sum(run.energy.scope_pj(scope) for run in runs) * self.batch / tokens / 1e6
                )
            rows.append(row)
        return pd.DataFrame(rows)


def _dram(run: Simulation) -> list[str]:
    return [name for name in run.counts.layers.dtype.names or () if "_dram_" in name]


def generate(  # noqa: PLR0913  the run, and what neuralfuse.simulate takes
    network: Decoder | str | Path,
    prompt: int = 128,
    tokens: int = 32,
    batch: int = 1,
    accelerator: Accelerator | str | Path = "paper",
    voltage: Mapping[str, float | str] | None = None,
    clock: float | Literal["follow"] | None = None,
    table: EnergyTable | str | Path = "published",
    advance: Callable[[int, int, dict[str, float]], None] = lambda done, total, figures: None,
) -> Generation:
    """Prefill of a prompt, and decode of `tokens` more of each of `batch` sequences, counted token by token.

    Parameters
    ----------
    network: a preset, a YAML file, or a `simulator.decoder.Decoder`.
    prompt, tokens: of each sequence. The prompt's logits give the first token, each run after it one more.
    accelerator, voltage, clock, table: as `neuralfuse.simulate` takes them. Keys and values are in DRAM, or in the
        accelerator's `cache_buffer`.
    advance: called with (runs done, runs, {}).

    Raises
    ------
    InputError: a name, file or number that cannot be; keys and values that do not fit into the cache buffer.

    >>> found = generate("gpt2", prompt=16, tokens=3).frame().set_index("phase")
    >>> found.tokens.to_dict(), bool(found.tokens_per_s.decode < found.tokens_per_s.prefill)
    ({'prefill': 16, 'decode': 2}, True)
    """
    model = network if isinstance(network, Decoder) else decoder(network)
    machine = accelerator if isinstance(accelerator, Accelerator) else accelerator_named(accelerator)
    entries = table if isinstance(table, EnergyTable) else energy_table(table)
    if not 2 <= tokens <= MOST_TOKENS:
        raise InputError(f"decoder {model.name}", "tokens", tokens, f"2 to {MOST_TOKENS}: one by the prompt, and more")
    model.check_cache(machine, prompt + tokens - 1, batch)
    model.workload(1, prompt + tokens - 2, batch)  # refused now, if at all
    runs = []
    for i in range(tokens):
        advance(i, tokens, {})
        work = model.workload(prompt, 0, batch) if i == 0 else model.workload(1, prompt + i - 1, batch)
        runs.append(simulate(work, accelerator=machine, voltage=voltage, clock=clock, table=entries))
    advance(tokens, tokens, {})
    return Generation(model, prompt, batch, runs[0], tuple(runs[1:]))
