"""A bag of token embeddings and one residual block: an encoder that trains in minutes on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from haste.encoders.base import Encoder

FEATURE_SCALE = 0.25
"""initial standard deviation of a feature, about that of a pretrained transformer pooled by its mean;
the output layer's step sizes of the paper suit it"""


class BagEncoder(Encoder):
    """Mean of the embeddings of a document's tokens, a residual block, a layer norm.

    Sparse features have an embedding each, too, and the mean is weighted by their values: sum of w e
    over sum of |w|, which for equal weights above 0 is the mean of text.

    Only tokens of `vocabulary` (those of the training documents) have an embedding; special tokens
    and tokens never trained on are left out, and a document of none gets the norm's bias. The block
    starts as the identity, so an untrained encoder gives the normalised mean embedding.

    Without the block (`residual`) a step is faster. In training a share `token_dropout` of the tokens
    is left out, others each time.
    """

    lookup: Tensor

    def __init__(
        self,
        embeddings: Tensor,
        vocabulary: Tensor,
        vocabulary_size: int,
        *,
        residual: bool = True,
        token_dropout: float = 0.0,
    ) -> None:
        """`embeddings` fp32 [V, H] of the token ids `vocabulary` int [V], out of
        `vocabulary_size` ids of the tokenizer."""
        super().__init__()
        self.feature_size = embeddings.shape[1]
        self.embedding = nn.EmbeddingBag.from_pretrained(
            embeddings.clone(), freeze=False, mode="mean", sparse=True, include_last_offset=True
        )
        self.token_dropout = token_dropout
        self.has_block = residual
        if residual:
            self.norm = nn.LayerNorm(self.feature_size)
            self.inner = nn.Linear(self.feature_size, self.feature_size)
            self.outer = nn.Linear(self.feature_size, self.feature_size)
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)
        self.final_norm = nn.LayerNorm(self.feature_size)
        nn.init.constant_(self.final_norm.weight, FEATURE_SCALE)
        lookup = torch.full((vocabulary_size,), -1, dtype=torch.int32)
        lookup[vocabulary.long()] = torch.arange(len(vocabulary), dtype=torch.int32)
        self.register_buffer("lookup", lookup)

    def forward(
        self,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None = None,
        longest: int | None = None,  # noqa: ARG002
    ) -> Tensor:
        """See Encoder."""
        compact = self.lookup[ids.long()]
        known = compact >= 0
        if self.training and self.token_dropout:
            known &= torch.rand(len(known), device=known.device) >= self.token_dropout
        before = F.pad(known.cumsum(0), (1, 0))
        bounds = before[offsets].to(torch.int32)
        if weights is None:
            mean = self.embedding(compact[known], bounds)
        else:
            mean = self._weighted_mean(compact[known], bounds, weights[known])
        return self.residual(mean)

    def residual(self, mean: Tensor) -> Tensor:
        """[B, H] features from means of embeddings [B, H]."""
        if not self.has_block:
            return self.final_norm(mean)
        block = self.outer(F.gelu(self.inner(self.norm(mean))))
        return self.final_norm(mean + block)

    def _weighted_mean(self, compact: Tensor, bounds: Tensor, weights: Tensor) -> Tensor:
        lengths = bounds.diff().long()
        document = torch.repeat_interleave(
            torch.arange(len(lengths), device=lengths.device), lengths
        )
        total = weights.new_zeros(len(lengths)).index_add_(0, document, weights.abs())
        # without weights above 0 there is nothing to sum
        share = weights / total.clamp(min=torch.finfo(total.dtype).tiny)[document]
        return F.embedding_bag(
            compact,
            self.embedding.weight,
            bounds,
            mode="sum",
            sparse=True,
            per_sample_weights=share.to(self.embedding.weight.dtype),
            include_last_offset=True,
        )

    def sparse_parameters(self) -> tuple[nn.Parameter, ...]:
        """The embedding: a step touches few of its rows."""
        return tuple(self.embedding.parameters())
