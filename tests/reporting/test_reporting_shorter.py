import pytest

from haste.errors import DataError
from haste.grid import RunKey
from haste.reporting.shorter import ShorterRuns

ROWS = """dataset,method,variant,seed,epochs,P@1
d,haste,default,0,10,50
d,haste,default,1,10,54
d,haste,default,2,20,90
d,omikuji,default,0,,40
"""


@pytest.fixture
def shorter(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(ROWS)
    return ShorterRuns.load(path)


def test_mean_over_the_seeds_of_fewer_epochs(shorter):
    key = RunKey("d", "haste", "default", 7)
    assert shorter.metric(key, "P@1", 20) == 52.0
    assert shorter.metric(key, "P@1", 21) == pytest.approx(194 / 3)
    assert shorter.metric(key, "P@1", 10) is None
    assert shorter.metric(key, "P@3", 20) is None
    assert shorter.metric(RunKey("d", "omikuji", "default", 0), "P@1", 20) is None


def test_epochs_are_told(shorter):
    assert shorter.epochs() == "10 to 20"


def test_another_table_is_refused(tmp_path):
    path = tmp_path / "main.csv"
    path.write_text("dataset,method\nd,haste\n")
    with pytest.raises(DataError, match=r"no column variant, seed, epochs\. Make it with: haste"):
        ShorterRuns.load(path)
