"""``python -m shared_record``: the same as the command ``shared-record``."""

from shared_record.cli import main

main()
