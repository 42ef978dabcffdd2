"""Floor 2: what changes about a model before it trains."""
