"""The folder that people write: its YAML, its order, its bundle, its s6 directories; it knows no machine."""
