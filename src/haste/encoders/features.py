"""Features of a whole split from an encoder, batch by batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from haste.config import EncoderConfig
from haste.data.ragged import Ragged
from haste.data.tokenize import load_tokens
from haste.encoders.base import Encoder
from haste.encoders.registry import build_encoder
from haste.paths import CorpusDir, TokenDir


@torch.no_grad()
def encode(encoder: Encoder, tokens: Ragged, batch_size: int = 256) -> np.ndarray:
    """fp32 [N, H]: features of all documents, in evaluation mode.

    Documents of like length share a batch, so little of it is padding.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    features = np.empty((len(tokens), encoder.feature_size), np.float32)
    by_length = np.argsort(tokens.lengths(), kind="stable")
    for begin in range(0, len(tokens), batch_size):
        rows = by_length[begin : begin + batch_size]
        chosen = tokens.take(rows)
        ids = torch.from_numpy(chosen.values).to(device)
        offsets = torch.from_numpy(chosen.offsets).to(device)
        features[rows] = encoder(ids, offsets).float().cpu().numpy()
    return features


def encode_split(
    kind: str,
    model: Path,
    tokens: TokenDir,
    corpus: CorpusDir,
    split: str = "train",
    pooling: str = "mean",
) -> np.ndarray:
    """fp32 [N, H]: features of a split from the untrained encoder `kind` (bag or transformer).

    Raises DataError when tokens or model are missing, damaged or stale.
    """
    opened = load_tokens(tokens, corpus)
    encoder = build_encoder(EncoderConfig(kind=kind, pooling=pooling), model, opened)
    return encode(encoder, opened.splits[split])
