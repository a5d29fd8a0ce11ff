"""What the models say about one picture or one video, for people and programs."""
