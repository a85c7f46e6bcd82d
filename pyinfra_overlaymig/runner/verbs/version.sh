# version: this runner's version and the format it reads and writes.
# shellcheck shell=dash

verb_version() { printf 'system-migrate %s (format %s)\n' "$VERSION" "$FORMAT"; }
