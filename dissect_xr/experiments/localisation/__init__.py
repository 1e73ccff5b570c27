"""Where a class is seen: class activation maps, boxes drawn from them, and how they lie to objects that people drew."""
