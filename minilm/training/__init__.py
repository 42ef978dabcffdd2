"""Floor 3: the training loop and what it stands on."""
