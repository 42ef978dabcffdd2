"""Floor 2: files <-> models. Only safetensors and JSON, never a pickle."""
