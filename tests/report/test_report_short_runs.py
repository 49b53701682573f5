import pytest

from haste.errors import DataError
from haste.grid import RunKey
from haste.report.load import ShortRuns

ROWS = """dataset,method,variant,seed,epochs,P@1
d,haste,default,0,10,50
d,haste,default,1,10,54
d,haste,default,2,20,90
d,omikuji,default,0,,40
"""


@pytest.fixture
def short_runs(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(ROWS)
    return ShortRuns(path)


def test_mean_over_the_seeds_of_fewer_epochs(short_runs):
    key = RunKey("d", "haste", "default", 7)
    assert short_runs.metric(key, "P@1", 20) == 52.0
    assert short_runs.metric(key, "P@1", 21) == pytest.approx(194 / 3)
    assert short_runs.metric(key, "P@1", 10) is None
    assert short_runs.metric(key, "P@3", 20) is None
    assert short_runs.metric(RunKey("d", "omikuji", "default", 0), "P@1", 20) is None


def test_epochs_are_told(short_runs):
    assert short_runs.epochs() == "10 to 20"


def test_another_table_is_refused(tmp_path):
    path = tmp_path / "main.csv"
    path.write_text("dataset,method\nd,haste\n")
    with pytest.raises(DataError, match=r"no column variant, seed, epochs\. Make it with: haste"):
        ShortRuns(path)
