"""Write and read the QP map files of encoders."""
