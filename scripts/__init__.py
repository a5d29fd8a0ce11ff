"""What is started by hand or by make: demo, benchmarks, reproductions."""
