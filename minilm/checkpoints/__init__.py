"""Files <-> models. Only safetensors and JSON, never a pickle."""
