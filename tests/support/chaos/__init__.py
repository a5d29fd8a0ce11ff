"""SIGKILLs under way: runs that are struck again and again, finished, and compared."""
