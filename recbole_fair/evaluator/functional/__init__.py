"""Pure tensor functions behind the metrics."""
