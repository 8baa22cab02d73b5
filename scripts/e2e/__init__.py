"""The end-to-end run of scripts/e2e.py, by subject."""
