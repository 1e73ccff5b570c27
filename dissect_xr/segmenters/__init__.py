"""Labels that a segmentation network draws, where people have drawn none."""
