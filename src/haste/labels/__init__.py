"""Everything about labels before training: frequencies, split, embeddings, groups, order."""
