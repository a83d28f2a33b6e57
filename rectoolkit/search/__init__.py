"""Search: code tables and exact top-k over packed codes, float rows and inverted lists. Torch-free."""
