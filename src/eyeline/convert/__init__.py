"""Make models: export, mirror, prove and quantise them."""
