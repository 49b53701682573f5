#!/bin/sh
# What a container of this project has; run inside it by envs/Dockerfile and envs/haste.def, which have put
# the project into /opt/haste. REQUIREMENTS: the lock to install (envs/cpu.txt; envs/report.txt has no torch).
set -eu
cd /opt/haste
apt-get update
# git and rsync: Snakemake's sources and storage where no disk is shared; gcc: Triton compiles its launchers
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
  ca-certificates gcc git libc6-dev python3-dev python3-venv rsync
rm -rf /var/lib/apt/lists/*
python3 -m venv .venv
.venv/bin/pip install --no-cache-dir -r "${REQUIREMENTS:-envs/cpu.txt}"
.venv/bin/pip install --no-cache-dir --no-deps .
