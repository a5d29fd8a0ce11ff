"""The report: one page that shows what a cleaning did, in numbers, charts and pictures."""
