#!/usr/bin/env bash
# Run by Snakemake in the environment made of haste.yaml, in the project's folder.
set -euo pipefail
pip install --no-deps -e .
