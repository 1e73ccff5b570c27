"""One task of an extraction: the activations of all layers for some images."""
