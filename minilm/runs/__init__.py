"""One run, from a config to a finished folder, and what is done with such a folder."""
