"""What would a cleaning take? Answered from a sample, before it is begun."""
