"""Where the labels of a probe come from: one label set, or several that are merged."""
