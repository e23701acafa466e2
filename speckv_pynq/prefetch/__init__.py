"""What to bring up before it is asked for."""
