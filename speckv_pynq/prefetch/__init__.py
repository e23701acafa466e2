"""What to bring up ahead of need: orders and windows, over plain numbers; the tiers do the work."""
