"""A grid of runs without Snakemake: in which order, on which GPUs, and how results come home."""
