"""What a layer's name may say of where its values are taken, and the hooks that take them."""
