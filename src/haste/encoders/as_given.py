"""No encoder: the documents' own features, for embeddings that were computed elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.encoders.bag import FEATURE_SCALE
from haste.encoders.base import Encoder
from haste.errors import ConfigError


class AsGiven(Encoder):
    """Dense embeddings, or sparse features, [B, H] as they are, but for one factor.

    The factor gives the training documents' features the mean square of those of a trained encoder, for which
    the output layer's step sizes are made. Nothing here is trained.
    """

    scale: Tensor

    def __init__(self, feature_size: int, values: Tensor | None = None, documents: int = 1) -> None:
        """`values` fp32 [T]: all values of the training documents, which `documents` counts."""
        super().__init__()
        self.feature_size = feature_size
        scale = torch.ones(())
        if values is not None and len(values):
            mean_square = values.double().square().sum() / (documents * feature_size)
            scale = (FEATURE_SCALE / mean_square.sqrt().clamp(min=1e-12)).float()
        self.register_buffer("scale", scale)
        # the weights of a run say all that is needed to build its encoder
        self.register_buffer("size", torch.tensor(feature_size))

    def forward(
        self,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None = None,
        longest: int | None = None,  # noqa: ARG002
    ) -> Tensor:
        """See Encoder."""
        if weights is None:
            raise ConfigError(
                "encoder.kind: none takes features as they are, and these documents are text; choose bag "
                "or transformer."
            )
        batch = len(offsets) - 1
        if len(weights) == batch * self.feature_size:
            # every document has every feature
            return weights.view(batch, self.feature_size) * self.scale
        documents = torch.arange(batch, device=ids.device)
        rows = documents.repeat_interleave(offsets.diff(), output_size=len(ids))
        features = weights.new_zeros(batch, self.feature_size)
        return features.index_put_((rows, ids.long()), weights * self.scale, accumulate=True)
