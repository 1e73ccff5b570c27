"""Where a model's weights lie while it runs: on one device, on several, in host memory, on disk."""
