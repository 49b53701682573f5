"""Metrics, propensities and baselines that need no training loop."""
