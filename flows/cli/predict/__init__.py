"""What the models say: about a picture, and about a video."""
