"""Interaction data: what it is, how it is read, split and generated. Torch-free.

``interactions`` the CSR rows and a data set of them; ``splits`` parts held out at random; ``adjacency`` and
``pairs`` one file format each; ``planted`` the generator; ``catalog`` names (cards) -> data.
"""

from rectoolkit.data.interactions import Dataset, Interactions

__all__ = ["Dataset", "Interactions"]
