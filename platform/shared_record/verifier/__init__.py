"""Independent checking of exported records: pure, offline, on nothing but the file and known keys."""
