"""The model against this machine's kernel."""
