#!/usr/bin/env bash
# cluster.sh COMMAND...: run a command with a Slurm cluster of this one machine, and end the cluster with it.
# Bound to the loopback; its files lie in a folder of their own that goes with it. Partitions cpu and gpu; the
# two GPUs are /dev/null and /dev/zero. No accounting database. Needs root, for Slurm starts jobs as users.
set -euo pipefail

if [ "$(id -u)" != 0 ]; then
  echo "cluster.sh: needs root: slurmd starts jobs as their users" >&2
  exit 3
fi
for program in slurmctld slurmd munged setpriv; do
  command -v "$program" >/dev/null && continue
  if command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    # a package that starts its service would leave it behind
    printf '#!/bin/sh\nexit 101\n' >/tmp/haste-policy && chmod +x /tmp/haste-policy
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] && policy= || cp /tmp/haste-policy "$policy"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; } >&2 </dev/null || true
    [ -z "$policy" ] || rm -f "$policy"
    rm -f /tmp/haste-policy
    command -v "$program" >/dev/null && continue
  fi
  echo "cluster.sh: $program is not there; install Slurm and munge (Debian: slurm-wlm munge)" >&2
  exit 3
done

# where a job's own srun looks: Snakemake's plugin hides SLURM_CONF from it
configuration=/etc/slurm/slurm.conf
if [ -e "$configuration" ] || [ -L "$configuration" ]; then
  echo "cluster.sh: $configuration is there: this machine belongs to a cluster" >&2
  exit 3
fi
folder=$(mktemp -d /tmp/haste-slurm-XXXXXX)
pids=()
command=
named=
stop() {
  trap - EXIT INT TERM
  # with all that it started
  [ -z "$command" ] || kill -- "-$command" 2>/dev/null || true
  # jobs first, for slurmd's steps outlive it
  scancel --user=root 2>/dev/null || true
  for _ in $(seq 20); do
    [ -n "$(squeue -h 2>/dev/null)" ] || break
    sleep 0.5
  done
  touch "$folder/over"
  [ ! -e "$folder/slurmd.pid" ] || kill "$(cat "$folder/slurmd.pid")" 2>/dev/null || true
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do
    for _ in $(seq 20); do kill -0 "$pid" 2>/dev/null || break; sleep 0.5; done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  # Snakemake waits for its jobs when it is asked to end
  [ -z "$command" ] || kill -KILL -- "-$command" 2>/dev/null || true
  [ -z "$named" ] || cat "$named" >/etc/hosts
  rm -rf "$folder"
  rm -f "$configuration"
}
trap stop EXIT
trap 'exit 143' INT TERM

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

chmod 755 "$folder"
mkdir "$folder/munge" "$folder/state" "$folder/spool" "$folder/log"
dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
chown -R munge: "$folder/munge"
chmod 400 "$folder/munge/key"
# its process is the one that is ended
setpriv --reuid=munge --regid=munge --init-groups munged --foreground --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
  --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" \
  >"$folder/log/munged" 2>&1 &
pids=("$!")

host=$(hostname -s)
# a bare container may not know its own name
if ! getent hosts "$host" >/dev/null; then
  named=$folder/hosts
  cp /etc/hosts "$named"
  echo "127.0.0.1 $host" >>/etc/hosts
fi
# --all: nproc alone obeys OMP_NUM_THREADS
cores=$(nproc --all)
memory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
cat >"$folder/gres.conf" <<END
Name=gpu File=/dev/null
Name=gpu File=/dev/zero
END
cat >"$folder/slurm.conf" <<END
ClusterName=haste
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmctldParameters=enable_configless
CommunicationParameters=NoInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=30
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/jobs
GresTypes=gpu
ReturnToService=2
MinJobAge=3600
KillWait=10
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory Gres=gpu:2
PartitionName=cpu Nodes=$host Default=YES MaxTime=600
PartitionName=gpu Nodes=$host MaxTime=600
END
mkdir -p "${configuration%/*}"
ln -s "$folder/slurm.conf" "$configuration"
export SLURM_CONF="$folder/slurm.conf" HASTE_SLURM="$folder"
for _ in $(seq 40); do [ -S "$folder/munge/socket" ] && break; sleep 0.25; done
slurmctld -D >"$folder/log/slurmctld" 2>&1 &
pids=("$!" "${pids[@]}")
# a node that was killed starts again, like a machine
while [ ! -e "$folder/over" ]; do
  slurmd -D -N "$host" >>"$folder/log/slurmd" 2>&1 || true
  sleep 3
done &
pids=("$!" "${pids[@]}")
for _ in $(seq 120); do
  [ "$(sinfo -h -p cpu -o %T 2>/dev/null)" = idle ] && break
  sleep 0.5
done
if [ "$(sinfo -h -p cpu -o %T 2>/dev/null)" != idle ]; then
  tail -n 20 "$folder"/log/* >&2
  echo "cluster.sh: the node did not come up" >&2
  exit 1
fi
# in the background, for bash hears a signal only between commands
setsid "$@" &
command=$!
result=0
wait "$command" || result=$?
command=
exit "$result"
