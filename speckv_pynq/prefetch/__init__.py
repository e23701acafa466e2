"""What to bring up ahead of need: orders, ranks, windows and returns; the tiers do the work."""
