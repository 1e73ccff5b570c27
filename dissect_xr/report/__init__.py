"""The report: pages that open from disk."""
