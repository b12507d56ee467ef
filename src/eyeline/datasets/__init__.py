"""Image/mask datasets: `pairs` finds and reads them, `union` joins them, `catalogue` says where from.

Nothing is imported here: the catalogue needs no Pillow.
"""
