"""Which runner this is; the operator's side goes by its digest."""

VERSION = "0.1.0"
