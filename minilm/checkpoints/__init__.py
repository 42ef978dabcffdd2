"""Reading and writing models, as safetensors and JSON files only, never as pickles."""
