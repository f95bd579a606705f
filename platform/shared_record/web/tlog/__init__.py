"""Each tenant's log in public: checkpoint, tiles, entries, policy and keys under ``/log/<public id>/``."""
