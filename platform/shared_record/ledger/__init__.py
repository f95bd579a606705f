"""The ledger: deltas, trees, checkpoints and proofs. ``entry``, ``merkle``, ``note`` and ``amounts`` are pure."""
