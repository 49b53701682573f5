"""Features of a whole split from an encoder, batch by batch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from haste.config import EncoderConfig, EncoderKind, Pooling
from haste.data.batches import collate, group_by_length
from haste.data.ragged import Ragged
from haste.data.tokens import load_tokens
from haste.encoders.base import Encoder
from haste.encoders.registry import build_encoder
from haste.files import mapped_array, naming_target
from haste.paths import CorpusDir, TokenDir


@torch.no_grad()
def encode(
    encoder: Encoder,
    tokens: Ragged,
    batch_size: int = 256,
    out: np.ndarray | None = None,
    tick: Callable[[int], None] | None = None,
) -> np.ndarray:
    """fp32 [N, H]: features of all documents, in evaluation mode.

    Documents of like length share a batch, so little of it is padding. `out` takes the features,
    where they are to lie in a file that is mapped to memory. `tick` is called with the number of documents done.
    """
    encoder.eval()
    device = encoder.device
    shape = (len(tokens), encoder.feature_size)
    features = np.empty(shape, np.float32) if out is None else out
    done = 0
    for rows in group_by_length(tokens, batch_size):
        batch = collate(tokens, None, rows).to_torch(device)
        encoded = encoder(batch.ids, batch.offsets, batch.weights, batch.longest)
        features[rows] = encoded.float().cpu().numpy()
        done += len(rows)
        if tick:
            tick(done)
    return features


def encode_training_documents(
    kind: EncoderKind,
    model: Path,
    tokens: TokenDir,
    corpus: CorpusDir,
    pooling: Pooling = "mean",
    scratch: Path | None = None,
    tick: Callable[[int], None] | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """fp32 [N, H]: features of the training documents from the untrained encoder `kind`, computed on `device`.

    With `scratch` they lie in an unnamed file in that folder, mapped to memory. Sparse features
    get the same random embeddings each time. `tick` is called with the number of documents done.

    Raises ConfigError for an encoder that cannot read
    these documents, DataError when tokens or model are missing, damaged or stale.
    """
    opened = load_tokens(tokens, corpus)
    chosen = opened.splits["train"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_encoder(EncoderConfig(kind=kind, pooling=pooling), model, opened, device)
    out = None
    if scratch is not None:
        with naming_target(scratch), tempfile.TemporaryFile(dir=scratch) as file:
            out = mapped_array(file, np.float32, (len(chosen), encoder.feature_size))
    return encode(encoder, chosen, out=out, tick=tick)
