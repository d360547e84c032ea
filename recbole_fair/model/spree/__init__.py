"""SPREE: probes and adaptive steering."""
