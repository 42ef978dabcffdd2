"""Speed beside the usual tools, in the same run: ``make bench``."""
