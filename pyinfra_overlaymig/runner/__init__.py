"""The machine's side, `system-migrate`: it runs on machines, from the base's own python3, and imports format/ alone."""
