"""Kernel and scale benchmarks."""
