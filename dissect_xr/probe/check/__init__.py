"""What is suspicious in a probe, before anything is dissected."""
