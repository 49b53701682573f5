"""The settings of one run, by section, checked when they are made; without importing torch.

The runs of a grid, and how the settings of a run are resolved, are in haste.grid.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from haste.errors import ConfigError
from haste.former_names import renamed_settings
from haste.kernels.state import FanIn, GroupSize
from haste.settings import (
    Bool,
    Float,
    Int,
    PathText,
    Seed,
    SettingError,
    Share,
    naming,
    parse,
    plain_name,
    read_settings,
    settings,
)

Grouping = Literal["semantic", "balanced", "frequency", "frequency_shuffled", "random"]
Pattern = Literal[
    "dense",
    "bottleneck",
    "fixed_fan_in",
    "group_fan_in",
    "block_sparse",
    "unstructured",
    "label_tree",
]

EncoderKind = Literal["bag", "transformer", "none"]
Pooling = Literal["mean", "cls"]
Frequencies = Literal["train", "train_and_test"]
HeadRatio = Annotated[Float, Field(ge=0, le=0.9)]
Device = Literal["auto", "cpu", "cuda"]


def _model_name(value: str) -> str:
    plain_name(Path(value).name)
    return value


ModelName = Annotated[PathText, AfterValidator(_model_name)]
PATTERNS = get_args(Pattern)
DEVICES = get_args(Device)
GROUPINGS = get_args(Grouping)


@settings("encoder")
class EncoderConfig:
    """What turns a document into features h in R^H."""

    kind: EncoderKind = "bag"
    """bag (token embedding bag, for CPU), transformer, or none (dense or sparse features as they are)"""
    model: ModelName = "all-MiniLM-L6-v2"
    """a name of `models` in datasets.yaml; or a folder, its path with a /, such as ./models/mine, that has
    config.json, tokenizer.json and model.safetensors"""
    max_len: Annotated[Int, Field(ge=4, le=4096)] = 32
    """tokens kept of a document, special tokens included"""
    pooling: Pooling = "mean"
    """mean (over the tokens) or cls"""
    residual: Bool = True
    """bag: a residual block, two layers [H, H], follows the mean of the embeddings; false, as for
    documents read by their own words: none, which is faster"""
    token_dropout: Annotated[Float, Field(ge=0, le=0.95)] = 0.0
    """bag: share of a document's tokens or features that a step leaves out, others each time"""
    learning_rate: Annotated[Float, Field(ge=0, le=1)] = 5e-4
    weight_decay: Annotated[Float, Field(ge=0, le=1)] = 0.01
    """not on biases and norms"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "torch", "packed"] = "auto"
    """transformer: torch, documents padded and torch's attention; packed, documents end to end without
    padding, of BERT, RoBERTa and (of at most 64 tokens) MPNet models, on a GPU in bfloat16 (others as torch);
    auto: packed on a GPU, torch on a CPU"""
    gradient_checkpointing: Bool = False
    """transformer: activations inside its blocks are computed again for the backward pass, not kept;
    less memory, a third more work"""

    @property
    def model_folder(self) -> Path | None:
        """The folder where `model` is one and not a name."""
        return Path(self.model) if "/" in self.model else None

    @property
    def model_name(self) -> str:
        """The model's name as part of a file name; of a folder, no other one's."""
        if self.model_folder is None:
            return self.model
        path = os.path.normpath(self.model)
        return f"{Path(path).name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


@settings("layer")
class LayerConfig:
    """The output layer: its sparsity pattern, its head, its dtypes."""

    pattern: Pattern = "group_fan_in"
    """dense, bottleneck, fixed_fan_in, group_fan_in, block_sparse or unstructured; with a head, that of the tail; or
    label_tree: dense rows, of which those of the best clusters of labels are scored"""
    fan_in: FanIn = 32
    """F: features each label reads (weights a label; for `unstructured` on average)"""
    group_size: GroupSize = 16
    """G: labels that share an index set; of label_tree those of a cluster"""
    block_size: Literal[4, 8, 16, 32] = 8
    """block_sparse: length of a contiguous run of features"""
    shortlist: Annotated[Int, Field(ge=1, le=4096)] = 32
    """label_tree: clusters of which all labels are scored; in training those of the positives are added"""
    tree_levels: Annotated[Int, Field(ge=1, le=4)] = 1
    """label_tree: clusters of labels, clusters of G of these, ...; the clusters of the last level are all scored"""
    head_ratio: HeadRatio = 0.0
    """share of labels, most frequent first, in a dense head; 0 for no head"""
    grouping: Grouping = "random"
    """semantic, balanced, frequency or random order of the tail"""
    frequencies: Frequencies = "train"
    """labels are counted over `train`, or over `train_and_test` as the released code does (a leak)"""
    features: Literal["shared", "private", "projections"] = "shared"
    """head and tail read the same h, `private` halves of it, or learned `projections`"""
    dropout: Annotated[Float, Field(ge=0, le=0.95)] = 0.0
    """on the features each part of the layer reads, drawn for each part; 0.4 in a grid that does not say it"""
    sampling: Literal["without_replacement", "with_replacement"] = "without_replacement"
    """of index sets; with_replacement as in the released code"""
    bias_init: Literal["zero", "log_prior"] = "log_prior"
    """zero, or log_prior: the log odds of each label"""
    chunks: Annotated[Int, Field(ge=1, le=4096)] = 1
    """of dense rows, a head's included: the step takes the labels in at least so many chunks, so it holds
    at most B x L / chunks logits; kernels on a GPU also bound their chunks to some 32 MiB themselves"""
    dtype: Literal["float32", "bfloat16", "float16", "float8_e4m3"] = "float32"
    """of the weights: float32, bfloat16, float16, float8_e4m3"""
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    """of weights narrower than float32 after an update: stochastic or nearest"""
    loss_dtype: Literal["float32", "bfloat16"] = "float32"
    """in which the loss and its gradient are computed; bfloat16 as in the released code"""
    loss: Literal["bce", "squared_hinge"] = "bce"
    """bce (binary cross-entropy), or squared_hinge as in Spartex's released code, of the torch backend alone"""

    def __post_init__(self) -> None:
        if self.chunks > 1 and self.sparse and self.head_ratio == 0:
            raise SettingError(
                "chunks",
                f"{self.chunks}, but {self.pattern} without a head has no dense rows to take in chunks; "
                "remove it, or set it for dense, bottleneck or a layer.head_ratio above 0",
            )
        if self.features != "shared" and self.head_ratio == 0:
            raise SettingError(
                "features", f"{self.features!r} needs a head; set layer.head_ratio above 0"
            )
        if self.pattern == "label_tree":
            for key, value, allowed in (
                ("head_ratio", self.head_ratio, 0),
                ("bias_init", self.bias_init, "zero"),
                ("chunks", self.chunks, 1),
            ):
                if value != allowed:
                    raise SettingError(key, f"{value!r} is not for label_tree; set it {allowed}")
        if self.fan_in % self.block_size and self.pattern == "block_sparse":
            raise SettingError(
                "block_size", f"{self.block_size} does not divide layer.fan_in, {self.fan_in}"
            )

    @property
    def grouped(self) -> bool:
        """Whether the order of labels matters to the pattern."""
        return self.pattern in ("group_fan_in", "block_sparse", "label_tree")

    @property
    def sparse(self) -> bool:
        """Whether the layer has connections to rewire."""
        return self.pattern not in ("dense", "bottleneck", "label_tree")


@settings("rewire")
class RewireConfig:
    """Dynamic sparse training: when and how connections move."""

    growth: Literal["none", "random", "gradient"] = "random"
    """none, random, or gradient (RigL at the granularity of the pattern)"""
    scope: Literal["global", "group"] = "global"
    """those of lowest score are pruned over the whole layer, or in each `group`"""
    fraction: Annotated[Float, Field(ge=0, le=0.9)] = 0.2
    """share of indices pruned and regrown each time; not read with a threshold"""
    threshold: Annotated[Float, Field(ge=0, le=100)] = 0.0
    """above 0: not a share, but all indices whose score, mean |w| over the labels that share them, is below it"""
    interval: Annotated[Int, Field(ge=1)] = 100
    """steps between rewirings"""
    until: Share = 0.66
    """share of the training steps after which the pattern stays"""
    reset_momentum: Bool = True
    """momentum of a regrown connection starts at 0; false as in the released code"""


@settings("auxiliary")
class AuxiliaryConfig:
    """Spartex's auxiliary loss on label clusters."""

    scale: Annotated[Float, Field(ge=0, le=100)] = 0.0
    """weight at the start, cosine-decayed; 0 for none"""
    cutoff: Share = 0.3
    """share of the training steps after which it is off"""
    cluster_size: GroupSize = 64
    """labels a cluster"""


@settings("training")
class TrainingConfig:
    """The loop and the classifier's optimiser (the loss is summed over batch and labels)."""

    epochs: Annotated[Int, Field(ge=1, le=100_000)] = 20
    min_steps: Annotated[Int, Field(ge=0, le=10**9)] = 0
    """more epochs where `epochs` make fewer steps than these; 1000 in a grid that says no `epochs`"""
    patience: Annotated[Int, Field(ge=0, le=100_000)] = 0
    """evaluations on validation without a better mean of P@1, P@5 and PSP@5 after which training stops, and
    the best weights are kept; 0 for never"""
    batch_size: Annotated[Int, Field(ge=1, le=1_000_000)] = 128
    learning_rate: Annotated[Float, Field(ge=0, le=100)] = 0.03
    stable_step: Bool = False
    """learning_rate is an upper bound: training takes at most half the step size above which SGD on the most
    frequent label's weights diverges, computed from batch size, momentum, label frequency and number of
    features; true in a grid that says no `learning_rate`"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """of the output layer: sgd, or adamw as in Spartex's released code, of the torch backend alone"""
    momentum: Annotated[Float, Field(ge=0, le=0.9999)] = 0.9
    """of sgd; the first beta of adamw"""
    weight_decay: Annotated[Float, Field(ge=0, le=1)] = 1e-4
    warmup: Share = 0.1
    """share of steps of linear warm-up, for encoder and classifier alike; cosine to 0 after"""
    group_by_length: Bool = False
    """batches of documents of like length, so that little of a batch is padding"""
    validate_every: Annotated[Int, Field(ge=1)] = 1
    """epochs between evaluations on the validation split"""
    tune_tail_bias: Bool = False
    """after training, an offset is added to all scores of the tail, the one with which the validation split
    scores best; with layer.head_ratio above 0 alone"""
    evaluate: Literal["validation", "test"] = "test"
    """the split that is read at the end, `validation` or `test`: predictions and metrics are of it"""
    tensorboard: Bool = False
    """loss, step size and validation metrics of each epoch are also written for TensorBoard, into the run's folder;
    needs the package tensorboard"""
    checkpoint_minutes: Annotated[Float, Field(ge=0)] = 5.0
    device: Device = "auto"
    """auto, cpu or cuda"""
    backend: Literal["auto", "torch", "triton"] = "auto"
    """kernels of the output layer: auto (triton on a GPU where there is one), torch or triton"""
    graphs: Bool = True
    """on a GPU, steps of a transformer are replayed as CUDA graphs, for which lengths are rounded up; off,
    the host launches each kernel, as it does the output layer's of the torch backend. Not with
    gradient_checkpointing of encoders that are not packed"""
    deterministic: Bool = False
    """repeat runs on a GPU are bit-equal, at some cost; on a CPU they always are"""
    threads: Annotated[Int, Field(ge=1, le=4096)] = 1
    """of one run on a CPU"""

    @property
    def fixed_epochs(self) -> int | None:
        """The epochs of every run with these settings; None where they depend on the data."""
        return None if self.min_steps or self.patience else self.epochs

    def epochs_on(self, documents: int) -> int:
        """Epochs on so many training documents: `epochs`, or as many as make `min_steps`."""
        steps_per_epoch = max(1, -(-documents // self.batch_size))
        return max(self.epochs, -(-self.min_steps // steps_per_epoch))


SECTIONS = {
    "encoder": EncoderConfig,
    "layer": LayerConfig,
    "rewire": RewireConfig,
    "auxiliary": AuxiliaryConfig,
    "training": TrainingConfig,
}


@settings("inputs")
class InputsConfig:
    """Where a run finds what it reads."""

    corpus: PathText
    tokens: PathText
    model: PathText
    order: PathText | None = None
    """None: labels in their own order"""
    clusters: PathText | None = None
    """label clusters of the auxiliary loss, in the same format as `order`"""


@settings("run")
class RunConfig:
    """All that one run depends on."""

    dataset: str
    method: str
    variant: str
    seed: Seed
    inputs: InputsConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    layer: LayerConfig = field(default_factory=LayerConfig)
    rewire: RewireConfig = field(default_factory=RewireConfig)
    auxiliary: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        folder = self.encoder.model_folder
        if folder and os.path.normpath(folder) != os.path.normpath(self.inputs.model):
            raise SettingError("inputs.model", f"is not the folder of encoder.model, {folder}")
        if self.training.tune_tail_bias and self.layer.head_ratio == 0:
            raise SettingError(
                "training.tune_tail_bias",
                f"{self.method} {self.variant} has no head, and an offset of all scores changes no ranking; "
                "set layer.head_ratio above 0, or leave it out",
            )

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, as written to config.yaml."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> RunConfig:
        """The inverse of `as_dict`, which also reads former names of keys.

        Raises ConfigError on unknown or missing keys and on values that are out of range.
        """
        return parse(cls, renamed_settings(value), "run")


def build_section(name: str, values: Mapping[str, Any]) -> Any:
    """One section (`encoder`, `layer`, ...) from plain values, checked."""
    return parse(SECTIONS[name], values, name)


def read_run(path: Path) -> RunConfig:
    """The configuration of a run; raises DataError for a damaged file, ConfigError for what is wrong in it."""
    value = read_settings(path)
    with naming(path):
        if {"datasets", "methods"} <= value.keys():
            raise ConfigError(
                f"the configuration of a grid, not of one run. Its runs: haste plan --grid {path}; the "
                f"configuration of one of them: haste configure --grid {path}"
            )
        inputs = value.get("inputs")
        if isinstance(inputs, Mapping) and inputs.keys() == {"corpus"}:
            raise ConfigError(
                "inputs: has corpus alone, as the run of a linear baseline, which haste baseline trains and nothing "
                "predicts with; a run of a layer has tokens and model, too."
            )
        return RunConfig.from_dict(value)
