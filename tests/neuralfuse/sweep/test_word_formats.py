"""Is a study of words in other formats one like any other, and does a flipped exponent cost what is known of it?"""

import pandas as pd

from neuralfuse.study.files import Study
from tests.conftest import swept


def test_bfloat16_collapses_where_integers_hold(tmp_path, capsys):
    """An exponent bit that reads 1 makes a weight of BF16 up to 2^128 times as large; one of int8 is 128 units off.

    Five chips with one cell in a thousand faulty, each network trained in its own words; the seed is fixed."""
    how = {"epochs": 8, "flip": False, "shift": 0}
    base = {"build": "resnet8", "options": {"width": 4}, "training": how}
    formats = {
        "int8": {},
        "int4 in groups": {"bits": 4, "group": 32},
        "bf16": {"format": "bf16"},
        "mxfp4": {"format": "mxfp4"},
    }
    study = Study(
        "formats",
        dataset={"name": "digits", "test_images": 150},
        networks=[{"name": name, **base, **words} for name, words in formats.items()],
        sram={"structures": ["iid"], "schedule": "resident"},
        cell_fault_rates=[1e-3],
        chips={"evaluation": 5},
    )
    swept(tmp_path / "out", study)
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    accuracy = (100 * rows.correct / rows.total).groupby(rows.network).mean()
    clean = 100 * rows.groupby("network").clean_accuracy.first()
    with capsys.disabled():
        print(f"\nclean: {clean.round(1).to_dict()}; at 0.1% of cells: {accuracy.round(1).to_dict()}")
    assert (clean > 85).all()
    lost = clean - accuracy
    assert (lost[["int8", "int4 in groups"]] < 10).all()
    assert lost["bf16"] > 50
    reads = rows.groupby("network").energy_weight_sram_pj.first()
    assert reads["bf16"] == 2 * reads["int8"]
