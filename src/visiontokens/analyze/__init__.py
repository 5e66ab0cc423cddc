"""Statistics and curves computed from scores and measurements."""
