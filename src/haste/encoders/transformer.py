"""Any Hugging Face encoder, from a local folder or the hub, pooled to one vector a document."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from haste.encoders.base import Encoder
from haste.errors import ConfigError


class TransformerEncoder(Encoder):
    """`pooling` mean (over a document's tokens) or cls (its first token).

    Documents are padded to the longest of the batch; attention sees no padding.
    """

    def __init__(self, model: Path | str, pooling: str, dtype: torch.dtype) -> None:
        super().__init__()
        from transformers import AutoModel

        try:
            self.model = AutoModel.from_pretrained(
                str(model),
                dtype=dtype,
                attn_implementation="sdpa",
                local_files_only=Path(model).exists(),
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"encoder.model: cannot load {model!s}: {error}. Give a folder with config.json, "
                "tokenizer.json and model.safetensors, or a hub name."
            ) from error
        self.pooling = pooling
        self.feature_size = self.model.config.hidden_size
        self.pad_id = self.model.config.pad_token_id or 0

    def forward(self, ids: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        """See Encoder."""
        if weights is not None:
            raise ConfigError(
                "encoder.kind: a transformer reads text, and this data set has sparse features alone; "
                "use bag."
            )
        lengths = offsets.diff()
        place = torch.arange(int(lengths.max()), device=ids.device)
        mask = place < lengths[:, None]
        padded = torch.full(mask.shape, self.pad_id, dtype=torch.long, device=ids.device)
        padded[mask] = ids.long()
        hidden = self.model(input_ids=padded, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        weights = mask.to(hidden.dtype).unsqueeze(2)
        return (hidden * weights).sum(1) / lengths.clamp(min=1).to(hidden.dtype)[:, None]
