import numpy as np
import pytest
from fake_grid import FakeGrid, load

from haste.errors import DataError
from haste.files import write_json
from haste.metrics.truth import load_truth
from haste.report.load import Documents
from haste.report.runs import load_run


@pytest.mark.parametrize("filtered", [False, True])
def test_each_documents_value_is_of_what_was_measured(tmp_path, filtered, describe_anew):
    fake = FakeGrid(tmp_path, methods=("haste",), seeds=(0,), documents=20, labels=30, epochs=5)
    key = next(fake.write().main_runs())
    corpus, files = fake.grid.layout.corpus(key.dataset), fake.run_dir(key)
    describe_anew(corpus.info, filtered=filtered)
    before = load_run(files.root)
    scores = np.tile(-np.arange(100, dtype=np.float32), (20, 1))
    write_json(files.metrics, load_truth(corpus, "test").evaluate(before.predictions(), scores))
    run = load_run(files.root)
    values = Documents(corpus).values(run, "PSP@3")
    assert values.mean() == pytest.approx(run.metrics["PSP@3"], abs=1e-4)
    # 40% of the positives are listed as pairs
    assert (run.metrics["PSP@3"] < before.metrics["PSP@3"] - 1) == filtered


def test_runs_that_are_not_there_are_counted_and_what_to_do_is_said(tmp_path):
    fake = FakeGrid(tmp_path, methods=("dense", "haste"), seeds=(0, 1), documents=20, labels=30)
    fake.write()
    for key in fake.grid.main_runs():
        if key.method == "haste":
            fake.run_dir(key).metrics.unlink()
    with pytest.raises(DataError, match=r"2 of the 4 runs .*haste/default/seed0.*finished\.yaml"):
        load(fake.grid, "main")
