"""Index sets, their invariants, and how they move during training."""
