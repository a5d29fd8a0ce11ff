"""What training reads: sources of samples, their order, and the stream of them."""
