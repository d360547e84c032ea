"""Base models: ours, and RecBole's with split scoring."""
