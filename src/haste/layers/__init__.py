"""Output layers: one class a sparsity pattern, all with the same four methods."""
