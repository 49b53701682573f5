"""What all rules share: the checked configuration, the runs, the names of files and targets."""

import os
import re
from dataclasses import fields
from functools import cache, partial
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from haste.checksums import file_sums
from haste.config import SECTIONS, InputsConfig
from haste.data.build import source_files
from haste.data.registry import load_registry
from haste.errors import ConfigError, HasteError
from haste.files import read_yaml
from haste.gpu_slot import visible_gpus
from haste.former_names import renamed_grid, stored_path
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey, named_after, naming
from haste.labels.spec import OrderSpec, encoder_id
from haste import paths
from haste.paths import SPLITS
from haste.estimates import (
    encoder_size,
    expected_size,
    known_size,
    placed,
    read_benchmarks,
)
from haste.presets import method
from haste.pretrained import FILES, check_models
from haste.report import registry
from haste.reservation import (
    Limits,
    corpus_request,
    embedding_request,
    grouping_request,
    linear_request,
    result_request,
    tokens_request,
    training_request,
)
from haste.runs import as_trained, is_finished, run_dir, run_files
from haste.slurm import Site

# relative, so that a project that was moved is not run again
REGISTRY_FILE, PUBLISHED_FILE = (
    # a package inside the project moves with it, one that is installed elsewhere does not
    path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    for path in (paths.REGISTRY, paths.PUBLISHED)
)
CONFIGURATIONS = Path(os.path.relpath(Path(workflow.basedir, "workflow", "configs")))
ENVIRONMENT = "../../envs/haste.yaml"


# with --sdm apptainer; envs/haste.def makes it
container: os.environ.get("HASTE_CONTAINER", "envs/haste.sif")


try:
    # Snakemake's own reader keeps the last of two equal keys without a word
    for path in workflow.configfiles:
        read_yaml(path)
    # before the schema, because this names the nearest key
    REGISTRY = load_registry(REGISTRY_FILE)
    config |= named_after(config, workflow.configfiles)
    with naming(*workflow.configfiles):
        GRID = GridConfig.from_dict(config)
        REGISTRY = REGISTRY.with_datasets(GRID.dataset_settings)
        DATASETS = {name: REGISTRY.dataset(name) for name in GRID.datasets}
        check_models(GRID, REGISTRY)
        BENCHMARKS = read_benchmarks(GRID)
        SIZES = {
            name: known_size(expected_size(REGISTRY, name), name, BENCHMARKS)
            for name in DATASETS
        }
        sources = [dataset.path for dataset in DATASETS.values()]
        for path in (GRID.data_dir, GRID.results_dir, *sources):
            if set("{}") & set(path):
                raise ConfigError(
                    f"config: {path!r}: Snakemake reads braces as wildcards; rename it."
                )
except HasteError as error:
    raise WorkflowError(str(error)) from None
validate(
    renamed_grid(config),
    "../schemas/config.schema.yaml",
    set_default=False,
)


def default_resource(name):
    """What `default-resources` of the profile says, or None."""
    resource = workflow.resource_settings._parsed_default_resources.get(name)
    return resource.evaluate(
        {},
        input=[],
        attempt=1,
        threads=1,
        rulename="",
        async_run=workflow.async_run,
    ).value


try:
    SITE = Site(**{field.name: default_resource(field.name) for field in fields(Site)})
except HasteError as error:
    raise WorkflowError(str(error)) from None
# a job that asks for no more, a quarter of an hour of them to start, shares a submission
SMALL_MINUTES = 20
# the most that a job may ask for
LIMITS = Limits(SITE.max_mem_mb, SITE.max_runtime)
# on a cluster the GPUs are where the profile says, whatever this machine has
HAS_GPU = bool(SITE.gpu_partition or visible_gpus(os.environ))


# where machines share no disk: inputs and outputs go through a storage, and only files that are named there
STORED = workflow.storage_settings.default_storage_provider is not None
LAYOUT = GRID.layout
LOGS = Path("logs")
TRAINED = {
    key: placed(GRID.resolve(key), gpu=HAS_GPU)
    for key in GRID.all_runs()
    if method(key.method).kind == "trained"
}
LINEAR = [key for key in GRID.all_runs() if method(key.method).kind == "linear"]
REQUESTS = {
    key: training_request(run, SIZES[key.dataset], REGISTRY, BENCHMARKS)
    for key, run in TRAINED.items()
}
ON_GPU = {key: int(run.training.device == "cuda") for key, run in TRAINED.items()}
# where a job's time has a limit: as often as the longest run must resume from its checkpoint, and twice.
# The snakemake inside a cluster's job tries once: the one that submitted it has the retries.
TRAIN_RETRIES = (
    1 + max(map(LIMITS.attempts, REQUESTS.values()), default=1)
    if LIMITS.minutes and workflow.is_main_process
    else 0
)
# rows of the main table before ablations, these before trials, one seed after the other: a stop leaves what
# decides most. What runs read is made before any of them
IN_ORDER = sorted(
    TRAINED, key=lambda key: (key.is_trial, key.variant != DEFAULT_VARIANT, key.seed)
)
PRIORITY = {key: priority for priority, key in enumerate(reversed(IN_ORDER), 1)}
BEFORE_RUNS = len(PRIORITY) + 1
# those of the preset too: tables of label orders show it, whether or not it is trained
CONFIGS = [
    *(GRID.resolve(registry.preset(GRID, name)) for name in GRID.datasets),
    *TRAINED.values(),
]
ENCODERS = {encoder_id(run.encoder): run.encoder for run in CONFIGS}
READ_BY = {
    name: {run.dataset for run in CONFIGS if encoder_id(run.encoder) == name}
    for name in ENCODERS
}


def fetched_model(name):
    """What stands for a fetched model: its record, or all of it where that must reach other machines."""
    folder = LAYOUT.model(name)
    return directory(str(folder)) if STORED else folder / "SOURCE.json"


MODEL_FOLDERS = {run.encoder.model_name: Path(run.inputs.model) for run in CONFIGS}
# and for an encoder's model: that, or the files of the user's own folder
MODEL_FILES = {
    run.encoder.model_name: (
        [MODEL_FOLDERS[run.encoder.model_name] / name for name in FILES]
        if run.encoder.model_folder
        else [fetched_model(run.encoder.model_name)]
    )
    for run in CONFIGS
}
# features as they are need no model
READS_MODEL = {
    (run.dataset, run.encoder.model_name)
    for run in CONFIGS
    if run.encoder.kind != "none"
}
# of documents of one length for one model
TRANSFORMER_READS = {
    (encoder.model_name, str(encoder.max_len))
    for encoder in ENCODERS.values()
    if encoder.kind == "transformer"
}
# names of all values of a run's configuration, by section
RUN_SETTINGS = [
    f"{section}__{field.name}"
    for section, cls in {**SECTIONS, "inputs": InputsConfig}.items()
    for field in fields(cls)
]
TABLES = registry.entries("table", GRID)
FIGURES = registry.entries("figure", GRID)

GRID_FILE = LAYOUT.results / "grid.yaml"
CONFIG_FILES = [os.path.relpath(path) for path in workflow.configfiles]
RUN = LAYOUT.run("{dataset}", "{method}", "{variant}", "{seed}")
RUN_LOG = LOGS / GRID.name / "{dataset}" / "{method}" / "{variant}" / "seed{seed}"
DATA_LOG = LOGS / "data" / "{dataset}"


def one_of(names):
    """A wildcard constraint: any of the names, nothing else."""
    return "|".join(sorted(map(re.escape, set(names)))) or "(?!)"


wildcard_constraints:
    dataset=one_of(GRID.datasets),
    source=one_of(dataset.source for dataset in DATASETS.values() if dataset.source),
    generated=one_of(name for name, dataset in DATASETS.items() if dataset.synth),
    model=one_of(MODEL_FILES),
    encoder=one_of(ENCODERS),
    max_len=r"\d+",
    variant=one_of(key.variant for key in GRID.all_runs()),
    seed=one_of(str(key.seed) for key in GRID.all_runs()),


def run_key(wildcards):
    """The run that a path names."""
    return RunKey(
        wildcards.dataset, wildcards.method, wildcards.variant, int(wildcards.seed)
    )


@cache
def run_settings(key):
    """What a run depends on. Of a finished run what decides no number stays as it was: such a change is no
    reason to train again, but for runs that are trained in any case."""
    if key not in TRAINED or workflow.dag_settings.forceall:
        return GRID.run_settings(key)
    return as_trained(run_dir(GRID, key), GRID.resolve(key)).as_dict()


def run_setting(wildcards, name):
    """One resolved value of a run's configuration, as text; empty where the run has no such value."""
    section, _, key = name.partition("__")
    value = run_settings(run_key(wildcards)).get(section, {})
    return f"{section}.{key} = {value[key]}" if key in value else ""


def raw_folder(dataset):
    """Where the files lie that a corpus is made of: fetched, generated or the user's own."""
    entry = DATASETS[dataset]
    return Path(entry.path) if entry.path else LAYOUT.raw(entry.source or dataset)


def raw_files(dataset):
    """What stands for them: the record of what was fetched, the generated folder, or the user's files."""
    entry, folder = DATASETS[dataset], raw_folder(dataset)
    if entry.source:
        return [folder / "SOURCE.json"]
    if entry.synth:
        return [folder]
    try:
        # what the reader uses: outputs may lie in the same folder
        return source_files(entry, folder)
    except HasteError as error:
        raise WorkflowError(f"datasets.{dataset}.path: {error}") from None


@cache
def corpus_entry(dataset):
    """What a corpus depends on: its entry in the registry, and the contents of the user's own files.

    Snakemake sees by their times that files have changed, but not that older ones took their place.
    """
    entry, folder = DATASETS[dataset], raw_folder(dataset)
    sums = f" {file_sums(raw_files(dataset), folder)}" if entry.path else ""
    return f"{entry}{sums}"


def corpus_files(dataset):
    """All files of a corpus folder."""
    corpus = LAYOUT.corpus(dataset)
    splits = [
        f(split) for split in SPLITS for f in (corpus.documents, corpus.positives)
    ]
    reciprocal = [
        stored_path(corpus.reciprocal(split)) for split in ("validation", "test")
    ]
    return [corpus.info, corpus.labels, *splits, *reciprocal]


def corpus_of(wildcards):
    """The corpus folder."""
    return LAYOUT.corpus(wildcards.dataset).root


def token_files(dataset, model, max_len):
    """All files of a folder of tokens."""
    tokens = LAYOUT.tokens(dataset, model, max_len)
    splits = [f(split) for split in SPLITS for f in (tokens.ids, tokens.offsets)]
    return [tokens.info, tokens.vocabulary, *splits]


def model_files(encoder):
    """The files of an encoder's model, where it has one."""
    return [] if encoder.kind == "none" else MODEL_FILES[encoder.model_name]


def encoder_inputs(wildcards):
    """Tokens and model of an encoder."""
    encoder = ENCODERS[wildcards.encoder]
    return {
        "tokens": token_files(wildcards.dataset, encoder.model_name, encoder.max_len),
        "model": model_files(encoder),
    }


def order_inputs(wildcards):
    """The corpus and the label embeddings: every order's cohesion is measured by them."""
    spec = OrderSpec.parse(wildcards.order)
    return {
        "corpus": corpus_files(wildcards.dataset),
        "embeddings": LAYOUT.embeddings(wildcards.dataset, spec.encoder),
    }


def train_inputs(wildcards):
    """Every file that the run's configuration names."""
    run = TRAINED[run_key(wildcards)]
    encoder = run.encoder
    return [
        *corpus_files(run.dataset),
        *token_files(run.dataset, encoder.model_name, encoder.max_len),
        *model_files(encoder),
        *(path for path in (run.inputs.order, run.inputs.clusters) if path),
    ]


def asks(request_of):
    """Memory and time of a rule's jobs: `request_of` gives what the one of some wildcards wants."""
    return {
        "mem_mb": lambda wildcards, attempt: LIMITS.memory_of(
            request_of(wildcards), attempt
        ),
        "runtime": lambda wildcards, attempt: LIMITS.minutes_of(
            request_of(wildcards), attempt
        ),
    }


def together(name, requests):
    """The group of jobs that are all short, so that a cluster gets them in one; None otherwise.

    Where no disk is shared, too: what a job of a group leaves for another of it goes through no storage.
    """
    short = all(request.minutes <= SMALL_MINUTES for request in requests)
    return name if short and not STORED else None


def data_group(wildcards):
    """All that is made of a small data set before its runs."""
    size = size_of(wildcards)
    encoders = [
        encoder for encoder in ENCODERS if wildcards.dataset in READ_BY[encoder]
    ]
    requests = [corpus_request(size), tokens_request(size)]
    for name in encoders:
        hidden, parameters = encoder_of_model(name)
        requests.append(embedding_request(size, ENCODERS[name], hidden, parameters))
        requests.append(grouping_request(size, hidden))
    return together("data", requests)


def run_group(wildcards):
    """Runs on a CPU that take minutes share jobs."""
    key = run_key(wildcards)
    return None if ON_GPU[key] else together("runs", [REQUESTS[key]])


def partition(on_gpu):
    """The partition of jobs with or without a GPU; None where there is no such thing."""
    return (on_gpu and SITE.gpu_partition) or SITE.slurm_partition


def size_of(wildcards):
    """Expected counts of the data set."""
    return SIZES[wildcards.dataset]


def encoder_of_model(name):
    """H and parameters of the model of an encoder."""
    encoder = ENCODERS[name]
    return encoder_size(encoder, MODEL_FOLDERS[encoder.model_name], REGISTRY)


def embed_request(wildcards):
    """What label embeddings of an encoder ask for."""
    return embedding_request(
        size_of(wildcards),
        ENCODERS[wildcards.encoder],
        *encoder_of_model(wildcards.encoder),
    )


def group_request(wildcards):
    """What a label order asks for."""
    hidden, _ = encoder_of_model(OrderSpec.parse(wildcards.order).encoder)
    return grouping_request(size_of(wildcards), hidden)


def results_request(wildcards):
    """What a table or figure of the grid asks for."""
    return result_request(max(size.test for size in SIZES.values()))


def of_repository(*paths):
    """Inputs that are committed; none through a storage, for a job gets the repository by itself."""
    return [] if STORED else list(paths)


def result_files(entry):
    """The files behind what the registry says that a table or figure reads."""
    inputs = entry.inputs_of(GRID)
    keys = [
        key for key in inputs.runs if not GRID.allow_partial or is_finished(GRID, key)
    ]
    # a run's configuration is one of its files: should a run fail after a change, its outputs are gone,
    # which alone is no reason to Snakemake to make a table again that is still there from before
    runs = [path for key in keys for path in run_files(run_dir(GRID, key), key)]
    corpora = [path for dataset in inputs.corpora for path in corpus_files(dataset)]
    return [
        *runs,
        *corpora,
        *inputs.orders,
        *of_repository(*inputs.benchmarks, *inputs.companions),
    ]


def written(tables=(), figures=()):
    """The files of some tables and figures, each with its numbers."""
    return [
        f"{prefix}.{suffix}"
        for prefixes, suffixes in (
            (map(LAYOUT.table, tables), ("csv", "md", "tex")),
            (map(LAYOUT.figure, figures), ("csv", "pdf", "png")),
        )
        for prefix in prefixes
        for suffix in suffixes
    ]


def of_benchmark(entries, benchmark):
    """Names of the tables or figures that show a benchmark."""
    return [name for name, entry in entries.items() if entry.benchmark == benchmark]
