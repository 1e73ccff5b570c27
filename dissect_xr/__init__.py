"""Network Dissection out of core."""
