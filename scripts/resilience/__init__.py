"""The comparison of scripts/resilience.py, in parts."""
