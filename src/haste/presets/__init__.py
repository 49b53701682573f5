"""Preset tables of methods and ablations, as YAML."""
