# shellcheck shell=bash
# logged LOG COMMAND...: become the command, its output appended to the log.
#
# Snakemake deletes a log before each attempt, so the log is a link to a file that keeps what all of them
# said, each below a line of its own. `exec`: signals reach the command, which is the job's process.
logged() {
    exec >> "$1.attempts" 2>&1
    ln -sf "${1##*/}.attempts" "$1"
    printf '== attempt %d, %s:' $(($(grep -c '^== attempt ' "$1" || true) + 1)) "$(date +%FT%T%z)"
    shift
    printf ' %q' "$@"
    printf '\n'
    exec "$@"
}
