"""The pictures of the documentation, drawn by code: `python docs/pictures.py` writes them."""
