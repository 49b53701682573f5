"""The benchmark of several processes, on a CPU."""

import csv

import ranks


def test_one_rank_and_all_are_timed_after_they_agree(tmp_path):
    out = tmp_path / "sharded.csv"
    assert ranks.run("sharded_bench:main", [str(out)], 2, tmp_path / "logs") == [0, 0]
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["scaling"] for row in rows] == ["one", "batch", "batch_per_rank", "labels"]
    one, same, larger, layer = rows
    assert (layer["labels"], layer["ranks"]) == ("3001", "2")
    assert (one["ranks"], same["ranks"]) == ("1", "2")
    assert int(larger["batch"]) == 2 * int(same["batch"]) == 2 * int(one["batch"])
    share = float(one["seconds_per_step"]) / float(same["seconds_per_step"])
    assert abs(float(same["efficiency"]) - share / 2) < 1e-3
    assert float(same["layer_gib"]) < float(one["layer_gib"])
    assert float(same["dx_error"]) < 1e-2
