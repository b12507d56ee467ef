"""Split one title into segments that run apart, and join their logs."""
