"""Find what is the same picture many times: by its bytes, and by its difference hash."""
