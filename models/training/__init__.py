"""What training adds to the network: losses, momentum copies, negatives, augmentation, workers."""
