"""Take models into a registry, check them, describe them and promote them."""
