"""What a dry run prints: the plans of all stages."""
