"""Any Hugging Face encoder, from a folder, pooled to one vector a document."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from haste.config import EncoderConfig
from haste.encoders.base import Encoder
from haste.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


FUSED, PLAIN = "sdpa", "eager"
"""attention by torch's one function or by products, as transformers calls them"""


def load_transformer(
    model: Path | str, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """A pretrained model from a folder, whose own code is never run; raises ConfigError when there is none."""
    from transformers import AutoModel

    if not Path(model).is_dir():
        raise ConfigError(f"encoder.model: {model} is no folder with a model.")
    try:
        loaded = AutoModel.from_pretrained(
            str(model),
            dtype=dtype,
            # said, because otherwise config.json may name a kernel that is downloaded and run
            attn_implementation=PLAIN,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"encoder.model: cannot load {model!s}: {error}. Give a folder with config.json, "
            "tokenizer.json and model.safetensors."
        ) from error
    return _with_fused_attention(loaded.to(device))


def empty_transformer(
    model: Path | str, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """A model of the configuration in a folder, its weights not initialised; raises ConfigError."""
    from transformers import AutoConfig, AutoModel
    from transformers.initialization import no_init_weights

    try:
        described = AutoConfig.from_pretrained(
            str(model), local_files_only=True, trust_remote_code=False
        )
        with no_init_weights():
            empty = AutoModel.from_config(described, dtype=dtype, attn_implementation=PLAIN)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"encoder.model: {model}: no configuration of a model ({error})."
        ) from error
    return _with_fused_attention(empty.to(device))


def _with_fused_attention(model: PreTrainedModel) -> PreTrainedModel:
    """A model with attention by torch's one function, where it can have that."""
    if model._supports_sdpa:
        model.set_attn_implementation(FUSED)
    return model


class TransformerEncoder(Encoder):
    """`pooling` mean (over a document's tokens) or cls (its first token); 0 for a document without tokens.

    Documents are padded to the longest of the batch; attention sees no padding.
    """

    def __init__(
        self, model: PreTrainedModel, pooling: str, *, gradient_checkpointing: bool = False
    ) -> None:
        """`model`: of transformers. `gradient_checkpointing`: for the backward pass, activations inside its blocks
        are computed again instead of kept."""
        super().__init__()
        self.model = model
        if getattr(model, "pooler", None) is not None:
            # nothing reads it, so it has no gradient
            model.register_module("pooler", None)
        if gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        # transformers copies the mask of plain attention from the host
        self.capturable = model.config._attn_implementation == FUSED
        self.pooling = pooling
        self.feature_size = model.config.hidden_size
        self.pad_id = model.config.pad_token_id or 0

    def forward(
        self,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None = None,
        longest: int | None = None,
    ) -> Tensor:
        """See Encoder. Does not wait for a GPU where `longest` is given."""
        refuse_weights(weights)
        lengths = offsets.diff()
        longest = int(lengths.max()) if longest is None else longest
        place = torch.arange(longest, device=ids.device)
        mask = place < lengths[:, None]
        # by gathering: to scatter ids to where the mask is true would wait for the number of those
        source = (offsets[:-1, None] + place).clamp_(max=len(ids) - 1)
        padded = ids[source].long().masked_fill_(~mask, self.pad_id)
        return self.padded_features(padded, mask)

    def padded_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[B, H] of padded documents: ids int64 [B, T], and bool [B, T], which of them are tokens."""
        fused = self.model.config._attn_implementation == FUSED
        # also where there is no padding: without a mask, transformers makes one of its own in CUDA graphs,
        # with which attention falls back to its slowest kernel. One of four dimensions is taken as it is,
        # where others are first searched for padding; plain attention would add it to the scores as it is.
        whole = mask[:, None, None, :] if fused else mask
        hidden = self.model(input_ids=ids, attention_mask=whole).last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0] * mask[:, :1]
        weights = mask.to(hidden.dtype).unsqueeze(2)
        return (hidden * weights).sum(1) / mask.sum(1, keepdim=True).clamp(min=1).to(hidden.dtype)


def refuse_weights(weights: Tensor | None) -> None:
    """Raise ConfigError where documents are sparse features."""
    if weights is not None:
        raise ConfigError(
            "encoder.kind: a transformer reads text, and this data set has sparse features alone; "
            "use bag."
        )


def transformer_encoder(model: PreTrainedModel, config: EncoderConfig) -> TransformerEncoder:
    """The encoder of a run around a model of transformers, which is on the device where it is to compute.

    What encoder.attention comes to is decided here and nowhere else.
    """
    from haste.encoders.packed import PackedEncoder, can_pack

    again = config.gradient_checkpointing
    wanted = (
        model.device.type == "cuda" if config.attention == "auto" else config.attention == "packed"
    )
    if wanted and can_pack(model, config.max_len):
        return PackedEncoder(model, config.pooling, gradient_checkpointing=again)
    return TransformerEncoder(model, config.pooling, gradient_checkpointing=again)
