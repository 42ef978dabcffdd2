"""Runs: from a config to a finished folder, and the commands that use such a folder."""
