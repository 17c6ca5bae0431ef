"""Does `neuralfuse decoder` add its runs up right, and refuse what cannot be with one line and status 2?"""

import pandas as pd
import pytest

from neuralfuse.analysis.generate import generate
from neuralfuse.analysis.simulate import simulate
from neuralfuse.cli import main
from simulator.decoder import decoder

SIZES = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_width": 8, "hidden": 64, "vocabulary": 100}
SMALL = "".join(f"{key}: {value}\n" for key, value in SIZES.items()) + "gated: true\nrotary: true\n"
CACHE = "cache_buffer: {capacity_bytes: 65536, rail: kv}\nrails: {sram: 0.8, logic: 0.8, kv: 0.8}\n"


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def machine(tmp_path):
    from simulator.accelerator import PRESETS

    path = tmp_path / "cached.yaml"
    kept = [line for line in (PRESETS / "edge.yaml").read_text().splitlines() if not line.startswith("rails")]
    path.write_text("\n".join(kept) + "\n" + CACHE)
    return path


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["decoder", *map(str, arguments)])
    return ended.value.code


def test_phases_are_the_sums_of_their_runs(small):
    made = generate(small, prompt=5, tokens=4, batch=2, accelerator="edge")
    frame = made.frame().set_index("phase")
    model = decoder(small)
    steps = [simulate(model.workload(1, 5 + i, 2), accelerator="edge") for i in range(3)]
    prompt = simulate(model.workload(5, 0, 2), accelerator="edge")
    assert frame.cycles.to_dict() == {"prefill": prompt.counts.cycles, "decode": sum(s.counts.cycles for s in steps)}
    assert frame.tokens.to_dict() == {"prefill": 10, "decode": 6}
    seconds = frame.cycles / 500e6
    assert frame.seconds.to_dict() == pytest.approx(seconds.to_dict())
    assert frame.tokens_per_s.to_dict() == pytest.approx((frame.tokens / seconds).to_dict())
    for scope in ("weight_sram", "sram", "chip", "system"):  # energies are of one sequence, each with a third of it
        each = {
            "prefill": prompt.energy.scope_pj(scope) / 5,
            "decode": sum(s.energy.scope_pj(scope) for s in steps) / 3,
        }
        assert frame[f"{scope}_uj_per_token"].to_dict() == pytest.approx({k: pj / 1e6 for k, pj in each.items()})
    assert made.cache_bytes == 2 * (5 + 3) * 2 * 2 * 2 * 8


def test_a_rail_of_the_cache_lowers_what_it_costs(small, machine, tmp_path, capsys):
    out, layers = tmp_path / "phases.csv", tmp_path / "layers.csv"
    shared = (small, "--accelerator", machine, "--prompt", 8, "--tokens", 3, "--quiet")
    assert run(*shared, "--out", out, "--layers", layers) == 0
    assert "bytes in cache_buffer at the last token" in capsys.readouterr().out
    full, rows = pd.read_csv(out), pd.read_csv(layers)
    assert set(rows.phase) == {"prefill", "decode"}
    assert rows[rows.phase == "prefill"].cycles.iloc[-1] == full.cycles[0]
    assert run(*shared, "--out", out, "--rail", "cache=0.6V") == 0
    low = pd.read_csv(out)
    assert (low.sram_uj_per_token < full.sram_uj_per_token).all()
    assert (low.weight_sram_uj_per_token == full.weight_sram_uj_per_token).all()
    assert run(*shared, "--out", out, "--rail", "kv=0.6V") == 0  # the same rail by its own name
    assert pd.read_csv(out).equals(low)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gpt5"], "gpt2, llama"),
        (["gpt2", "--prompt", 1000, "--tokens", 100], "at most 1024"),
        (["SMALL", "--accelerator", "MACHINE", "--prompt", 2000], "bytes of cache_buffer"),
        (["SMALL", "--rail", "cache=0.6V"], "of paper: sram, logic, weights, activations, accumulators"),
        (["SMALL", "--clock", "fast"], "follow, or a number of Hz"),
        (["SMALL", "--tokens", 1 << 20], "2 to 65536"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, said, small, machine, capsys):
    named = {"SMALL": small, "MACHINE": machine}
    assert run(*(named.get(a, a) for a in arguments), "--quiet") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_presets_are_listed(capsys):
    assert run("list") == 0
    assert "124,439,808" in capsys.readouterr().out
