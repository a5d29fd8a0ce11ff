"""What a web text says: mended, cleared of what nobody sees, and its language."""
