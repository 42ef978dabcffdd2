"""The training loop, and the modules that it uses."""
