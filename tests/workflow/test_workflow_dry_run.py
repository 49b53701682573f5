"""Dry runs of every configuration and with every profile, and every target by name."""

import dataclasses
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import yaml
from workflow_project import GRID, ROOT, Project, copy_workflow, job_counts, write_documents

from haste.data.registry import load_registry
from haste.grid import GridConfig
from haste.labels.spec import OrderSpec
from haste.paths import REGISTRY
from haste.presets import method
from haste.pretrained import FILES
from haste.report.registry import entries

CONFIGS = [
    "config.yaml",
    *(
        f"workflow/configs/{name}.yaml"
        for name in (
            "smoke",
            "plus",
            "wordnet",
            "wordnet-tuned",
            "debian",
            "wikdict",
            "paper",
            "paper-scaled",
        )
    ),
]
PROFILES = ["default", "gpu", "slurm"]
JOB_TABLE = ROOT / "workflow/scripts/job_table.py"


def grid_of(config: str) -> GridConfig:
    return GridConfig.from_dict(yaml.safe_load((ROOT / config).read_text()))


def short_names(grid: GridConfig) -> list[str]:
    registered = [*entries("table", grid).values(), *entries("figure", grid).values()]
    return [entry.target for entry in registered if not entry.on_request]


def test_all_configurations_are_tried():
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "workflow/configs").glob("*.yaml")}
    assert found == set(CONFIGS) - {"config.yaml"}
    # tests/kubernetes: its plugin is not in everybody's lock
    profiles = {path.name for path in (ROOT / "workflow/profiles").iterdir()}
    assert profiles == {*PROFILES, "kubernetes"}


@pytest.mark.parametrize(
    ("config", "profile"),
    [
        *((config, "default") for config in CONFIGS),
        *(("workflow/configs/smoke.yaml", profile) for profile in PROFILES[1:]),
    ],
)
def test_jobs_of_a_grid(project: Project, config, profile):
    grid = grid_of(config)
    registry = load_registry(ROOT / REGISTRY).with_datasets(grid.dataset_settings)
    datasets = [registry.dataset(name) for name in grid.datasets]
    kinds = Counter(method(key.method).kind for key in grid.runs())
    trained = [grid.resolve(key) for key in grid.runs() if method(key.method).kind == "trained"]
    read = {path for run in trained for path in (run.inputs.order, run.inputs.clusters) if path}
    for entry in entries("table", grid).values():
        read |= {str(path) for path in entry.inputs_of(grid).orders}
    # every order is measured by the embeddings of its encoder
    embedded = {
        (path.parts[1], OrderSpec.parse(path.parent.name).encoder) for path in map(Path, read)
    }
    jobs = project.jobs("--configfile", config, "--workflow-profile", profile)
    expected = {
        "fetch": len({dataset.source for dataset in datasets} - {""}),
        "synth": sum(bool(dataset.synth) for dataset in datasets),
        "fetch_model": len({run.inputs.model for run in trained}),
        "corpus": len(grid.datasets),
        "tokenize": len({run.inputs.tokens for run in trained}),
        "embed": len(embedded),
        "group": len(read),
        "configure": len(grid.runs()),
        "train": kinds["trained"],
        "baseline": kinds["linear"],
        **dict.fromkeys([*short_names(grid), "index"], 1),
    }
    assert jobs == {rule: count for rule, count in expected.items() if count}


def test_the_scaled_grid_is_the_papers():
    """Method for method, each with the fan-in, group size and head of the data set it stands for."""
    paper, scaled = (grid_of(f"workflow/configs/{name}.yaml") for name in ("paper", "paper-scaled"))
    small = dict(zip(paper.datasets, scaled.datasets, strict=True))
    assert {(small[key.dataset], key.method, key.variant, key.seed) for key in paper.runs()} == {
        (key.dataset, key.method, key.variant, key.seed) for key in scaled.runs()
    }
    for key in paper.runs():
        ours = scaled.resolve(dataclasses.replace(key, dataset=small[key.dataset]))
        theirs = paper.resolve(key)
        for name in ("pattern", "fan_in", "group_size", "head_ratio", "features", "chunks"):
            if (key.method, name) != ("dense", "chunks"):
                assert getattr(ours.layer, name) == getattr(theirs.layer, name), (key, name)


def test_a_generated_data_set(project: Project):
    shown = project.snakemake("-np", "--configfile", "workflow/configs/paper-scaled.yaml").stdout
    assert "haste synth --like=amazon-670k --scale=0.002 " in shown
    assert " -- data/small-Amazon-670K/raw" in shown
    assert "--raw data/small-Amazon-670K/raw" in shown


def test_a_data_set_that_cannot_be_generated_is_refused_before_any_job(project: Project):
    project.configure({**GRID, "datasets": {"toys": {"synth": {"documents": "many", "labels": 5}}}})
    shown = project.snakemake("-n")
    assert shown.returncode != 0
    assert "config.yaml: datasets.toys: synth.documents: 'many' is not allowed" in shown.stdout


def test_a_grid_is_named_after_its_file(project: Project):
    bare = {key: GRID[key] for key in ("datasets", "methods")}
    (project.root / "bare.yaml").write_text(yaml.safe_dump(bare))
    shown = project.snakemake("-np", "--configfile", "bare.yaml").stdout
    assert "--out results/bare/tables/main" in shown
    project.configure(bare)
    assert "--grid results/config/grid.yaml" in project.snakemake("-np").stdout


def test_a_folder_of_ones_own(project: Project, tmp_path):
    folder = tmp_path / "my files"
    folder.mkdir()
    config = project.root / "mine.yaml"
    config.write_text(
        yaml.safe_dump(
            {"name": "mine", "datasets": {"mine": {"path": str(folder)}}, "methods": ["dense"]}
        )
    )
    result = project.snakemake("-n", "--configfile", "mine.yaml")
    assert result.returncode != 0
    assert f"datasets.mine.path: {folder}: no layout of a data set" in result.stdout
    write_documents(folder)
    shown = project.snakemake("-np", "--configfile", "mine.yaml").stdout
    jobs = job_counts(shown)
    assert "fetch" not in jobs
    assert jobs["corpus"] == 1
    assert f"--raw '{folder}'" in shown
    assert "haste corpus mine --registry" in shown
    assert "--grid results/mine/grid.yaml" in shown


def test_a_model_of_ones_own(project: Project, tmp_path):
    folder = tmp_path / "models" / "all-MiniLM-L6-v2"
    grid = {
        "name": "mine",
        "datasets": ["wordnet-smoke"],
        "methods": ["haste"],
        "encoder": {"model": str(folder), "kind": "transformer", "max_len": 16},
    }
    (project.root / "mine.yaml").write_text(yaml.safe_dump(grid))
    result = project.snakemake("-n", "--configfile", "mine.yaml")
    assert result.returncode != 0
    assert f"mine.yaml: encoder.model: {folder} is no folder" in result.stdout
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("{}")
    shown = project.snakemake("-np", "--configfile", "mine.yaml").stdout
    assert "fetch_model" not in job_counts(shown)
    assert f"--model {folder} --max-len 16 --encoder transformer" in shown
    (folder / "config.json").write_text('{"max_position_embeddings": 8}')
    result = project.snakemake("-n", "--configfile", "mine.yaml")
    assert "mine.yaml: encoder.max_len: 16" in result.stdout


def test_features_as_they_are_need_no_model(project: Project, tmp_path):
    write_documents(tmp_path / "texts")
    folder = tmp_path / "dense"
    folder.mkdir()
    for split in ("trn", "tst"):
        np.save(folder / f"X.{split}.npy", np.ones((9, 4), np.float32))
        sp.save_npz(folder / f"Y.{split}.npz", sp.eye(9, format="csr"))
    grid = {
        "name": "mine",
        "datasets": {"dense": {"path": str(folder)}},
        "methods": ["haste"],
        "per_dataset": {"dense": {"encoder": {"kind": "none"}}},
    }
    (project.root / "mine.yaml").write_text(yaml.safe_dump(grid))
    jobs = project.jobs("--configfile", "mine.yaml")
    assert "fetch_model" not in jobs
    assert jobs["train"] == jobs["embed"] + 2 == jobs["tokenize"] + 2 == 3
    # beside texts, which do
    grid["datasets"]["texts"] = {"path": str(tmp_path / "texts")}
    (project.root / "mine.yaml").write_text(yaml.safe_dump(grid))
    shown = project.snakemake("-np", "--configfile", "mine.yaml", "--until", "tokenize").stdout
    assert job_counts(shown)["fetch_model"] == 1
    assert "data/models/all-MiniLM-L6-v2/SOURCE.json" in shown


def test_short_names_are_targets(finished: Project):
    grid = grid_of("config.yaml")
    listed = finished.snakemake("--list-target-rules").stdout.split()
    small = GridConfig.from_dict(yaml.safe_load((finished.root / "config.yaml").read_text()))
    benchmarks = ("kernels", "bench_kernels", "scale", "bench_scale")
    names = [*short_names(small), "tables", "figures", "index", *benchmarks, "plan"]
    assert set(names) <= set(listed)
    assert set(short_names(small)) < set(short_names(grid))
    # asked for by name, each is made, and alone
    jobs = finished.jobs("--force", "ablation_grouping", "table_main", "table_kernel_times")
    assert jobs == {"ablation_grouping": 1, "table_main": 1, "table_kernel_times": 1}


@pytest.mark.parametrize(
    ("name", "tables"),
    [("kernels", ("table_kernel_times",)), ("scale", ("table_scale",))],
)
def test_each_benchmark_has_two_targets(finished: Project, name, tables):
    # its tables and figures, without a run of it
    for table in tables:
        for path in (finished.root / "results/small/tables").glob(f"{table[6:]}.*"):
            path.unlink()
    assert finished.jobs(name) == {**dict.fromkeys(tables, 1), name: 1}
    result = finished.snakemake("-n", f"bench_{name}")
    assert f"haste bench {name} --out results/benchmarks" in result.stdout
    assert "gpu=1" in result.stdout
    assert f"bench_{name}" not in finished.jobs("--forceall")


def test_an_ablation_may_be_of_a_method_that_the_grid_has_not(project: Project):
    project.configure({**GRID, "ablations": ["corrections"]})
    assert "haste-released" not in GRID["methods"]
    jobs = project.jobs("ablation_corrections")
    assert jobs["train"] == jobs["configure"] == 6
    assert jobs["ablation_corrections"] == 1
    # frequency over train and test, over train alone, and semantic
    assert jobs["group"] == 3


def test_trials_are_made_when_they_are_asked_for(finished: Project):
    tuning = {"epochs": 2, "seeds": [7], "trials": {"a": {}, "b": {"training": {"momentum": 0.5}}}}
    finished.configure({**GRID, "tuning": tuning})
    assert finished.jobs() == {}
    trained = [name for name in GRID["methods"] if method(name).kind == "trained"]
    jobs = finished.jobs("tuning")
    # semantic order and clusters of another seed
    assert jobs.pop("group") == 2
    runs = 2 * len(trained)
    assert jobs == {"configure": runs, "train": runs, "table_tuning": 1, "tuning": 1}
    done = finished.snakemake("--cores", "2", "tuning")
    assert done.returncode == 0, done.stdout[-3000:]
    run = "--dataset wordnet-smoke --method haste --variant trial-b --seed 7"
    assert any(run in " ".join(call) for call in finished.calls())
    assert finished.jobs("tuning") == {}
    # another trial is a reason to try, and none to train the rest
    tuning["trials"]["a"] = {"training": {"momentum": 0.1}}
    finished.configure({**GRID, "tuning": tuning})
    assert finished.jobs() == {}
    assert finished.jobs("tuning") == {
        "configure": len(trained),
        "train": len(trained),
        "table_tuning": 1,
        "tuning": 1,
    }


def test_a_configuration_stands_alone(project: Project):
    config = project.root / "own.yaml"
    config.write_text("{name: own, datasets: [wordnet-smoke], methods: [popularity]}\n")
    # config.yaml's ablations, seeds and layer have no part in it
    jobs = project.jobs("--configfile", "own.yaml")
    assert jobs["baseline"] == jobs["configure"] == 1
    assert "train" not in jobs
    assert not any(rule.startswith("ablation_") for rule in jobs)


def test_single_values_can_be_set_on_the_command_line(project: Project):
    jobs = project.jobs("--config", "ablations=[]", "name=other")
    grid = grid_of("config.yaml")
    trained = [name for name in grid.methods if method(name).kind == "trained"]
    assert jobs["train"] == 3 * len(trained), "three seeds"
    # of rows of the main table, with and without a head
    assert {rule for rule in jobs if rule.startswith("ablation_")} == {"ablation_head"}


def job_of(shown: str, rule: str) -> str:
    """What a dry run says about the first job of a rule."""
    return shown.split(f"rule {rule}:")[1].split("\n\n")[0]


@pytest.mark.parametrize(
    ("device", "profile"),
    [
        ("cuda", "default"),
        ("auto", "default"),
        ("auto", "gpu"),
        ("cuda", "slurm"),
        ("auto", "slurm"),
        ("cpu", "slurm"),
    ],
)
def test_a_job_asks_for_what_its_run_needs(project: Project, profile, device):
    project.configure({**GRID, "ablations": [], "training": {"device": device}})
    run = "results/small/runs/wordnet-smoke/haste/default/seed0/metrics.json"
    shown = project.snakemake("-n", run, "--workflow-profile", profile, CUDA_VISIBLE_DEVICES="")
    train = job_of(shown.stdout, "train")
    # on a cluster `auto` is the GPUs of its partition, not those of the machine that submits
    on_gpu = device == "cuda" or (device, profile) == ("auto", "slurm")
    assert f"gpu={int(on_gpu)}" in train
    assert (reserved(train) > 6000) == on_gpu
    partitions = {
        job: re.search(r"slurm_partition=(\w+)", job_of(shown.stdout, job))
        for job in ("train", "embed")
    }
    if profile == "slurm":
        assert partitions["train"][1] == ("gpu" if on_gpu else "cpu")
        assert partitions["embed"][1] == "cpu"
    else:
        assert set(partitions.values()) == {None}


@pytest.fixture(scope="module")
def papers_jobs(tmp_path_factory) -> str:
    """What a dry run of the paper's grid on a cluster says; of all grids it has most jobs.

    The times are those that follow from the committed benchmarks.
    """
    project = copy_workflow(tmp_path_factory.mktemp("paper") / "project")
    benchmarks = Path("results/benchmarks")
    shutil.copytree(ROOT / benchmarks, project.root / benchmarks)
    arguments = ("--configfile", "workflow/configs/paper.yaml", "--workflow-profile", "slurm")
    return project.snakemake("-n", *arguments).stdout


def test_a_cluster_s_profile_names_no_sizes_of_rules(papers_jobs):
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    overridden = {key for rule in profile["set-resources"].values() for key in rule}
    assert not overridden & {"mem_mb", "runtime", "gpu", "slurm_partition"}
    limits = profile["default-resources"]
    asked = {
        name: [int(n) for n in re.findall(rf"\b{name}=(\d+)", papers_jobs)]
        for name in ("runtime", "mem_mb")
    }
    assert max(asked["runtime"]) == limits["max_runtime"]
    assert 34_000 < max(asked["mem_mb"]) <= limits["max_mem_mb"]


@pytest.fixture(scope="module")
def papers_table(papers_jobs) -> list[str]:
    table = subprocess.run(
        [sys.executable, JOB_TABLE], input=papers_jobs, capture_output=True, text=True, check=True
    ).stdout
    return table.splitlines()


def test_rows_in_the_documentation_are_of_the_table(papers_table):
    text = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith(("| corpus ", "| train "))]
    assert rows
    assert set(rows) <= set(papers_table)


def test_every_job_that_is_submitted_has_a_row(papers_jobs, papers_table):
    head, _, *lines = [line.strip("|").split("|") for line in papers_table]
    names = [cell.strip() for cell in head]
    rows = [dict(zip(names, (cell.strip() for cell in line), strict=True)) for line in lines]
    jobs = job_counts(papers_jobs)
    local = {"configure", "fetch", "fetch_model", "tables", "figures", "index"}
    assert sum(int(row["Jobs"]) for row in rows) == sum(
        count for rule, count in jobs.items() if rule not in local
    )
    train = [row for row in rows if row["Rule"] == "train"]
    assert sum(int(row["Jobs"]) for row in train) == jobs["train"]
    assert {(row["GPUs"], row["Partition"]) for row in train} == {("1", "gpu")}
    assert {row["Partition"] for row in rows if row["Rule"] != "train"} == {"cpu"}
    assert max(float(row["Time (h)"]) for row in rows) == 24


@pytest.mark.parametrize(
    ("resource", "refused"),
    [("max_runtime='1440'", False), ("max_runtime=1d", True), ("max_mem_mb=128GB", True)],
)
def test_limits_of_a_site_are_numbers(project: Project, resource, refused):
    project.configure({**GRID, "ablations": []})
    shown = project.snakemake("-n", "--default-resources", resource)
    assert (shown.returncode != 0) == refused, shown.stdout[-2000:]
    assert (f"default-resources.{resource.partition('=')[0]}: " in shown.stdout) == refused


def test_an_account_left_as_it_was_is_refused(project: Project):
    project.configure({**GRID, "ablations": []})
    account = ("--default-resources", "slurm_account=myaccount")
    refused = project.snakemake("--cores", "1", *account)
    assert refused.returncode != 0
    assert "slurm_account: myaccount" in refused.stdout
    assert not project.calls()


@pytest.mark.parametrize(
    ("device", "visible", "on_gpu"),
    [("cuda", "", True), ("auto", "0,1", True), ("auto", "", False), ("cpu", "0", False)],
)
def test_a_run_on_a_gpu_gets_a_slot_of_it(project: Project, device, visible, on_gpu):
    project.configure(
        {**GRID, "methods": ["dense"], "ablations": [], "training": {"device": device}}
    )
    arguments = ("-np", "--workflow-profile", "gpu", "--set-resources", "train:runs_per_gpu=5")
    shown = project.snakemake(*arguments, CUDA_VISIBLE_DEVICES=visible).stdout
    assert ("haste gpu-slot --runs-per-gpu 5 -- haste train -- results/" in shown) == on_gpu
    train = shown.split("rule train:")[1].split("\n\n")[0]
    assert f"gpu={int(on_gpu)}" in train
    # of a process with CUDA
    assert (reserved(train) > 6000) == on_gpu


def reserved(job: str) -> int:
    return int(re.search(r"mem_mb=(\d+)", job)[1])


def test_what_decides_most_is_trained_first(project: Project):
    project.configure(GRID)
    ranks = {}
    for job in project.snakemake("-n").stdout.split("\n\n"):
        rule, rank = re.search(r"rule (\w+):", job), re.search(r"priority: (\d+)", job)
        if rule and rank:
            run = re.search(r"method=(\S+), variant=(\S+), seed=(\d+)", job)
            ranks[rule[1], run.groups() if run else ""] = int(rank[1])
    trained = {run: rank for (rule, run), rank in ranks.items() if rule == "train"}
    ordered = sorted(trained, key=trained.get, reverse=True)
    keys = [
        key for key in GridConfig.from_dict(GRID).runs() if method(key.method).kind == "trained"
    ]
    assert set(ordered) == {(key.method, key.variant, str(key.seed)) for key in keys}
    decisive = [(variant != "default", int(seed)) for _, variant, seed in ordered]
    assert decisive == sorted(decisive)
    rules = {rule for rule, _ in ranks}
    assert {"fetch", "fetch_model", "corpus", "tokenize", "embed", "group", "configure"} < rules
    assert min(rank for (rule, _), rank in ranks.items() if rule != "train") > max(trained.values())


def test_lint(project: Project):
    result = project.snakemake("--lint")
    assert result.returncode == 0, result.stdout
