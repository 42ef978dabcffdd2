"""From labelled rows in files to padded batches of token ids.

Reading order: ``sources`` (a config's ``[data]`` section to three checked splits, by way of ``locations`` with
``catalog``, ``readers``, ``cleaning``, ``labels`` and ``splits``), ``tokenization`` (texts to flat arrays of token
ids), ``batching`` (rows to padded tensors).
"""
