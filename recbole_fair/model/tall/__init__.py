"""TALL and its baselines: MultVAE, WL, LOCA, LFT, EnLFT."""
