"""Methods that change a model before it trains: freezing and LoRA."""
