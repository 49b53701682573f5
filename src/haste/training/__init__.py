"""The loop and what it needs: optimisers, checkpoints, seeds, measurement."""
