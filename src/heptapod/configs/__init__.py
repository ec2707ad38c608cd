"""Settings, their limits and their kinds: nothing here imports torch, so that ``--help`` is quick."""
