"""Commands that decide anew what a run keeps."""
