"""What changes about a model before it trains."""
