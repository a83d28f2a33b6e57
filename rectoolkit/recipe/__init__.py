"""What a run is: settings, loading, overrides and the registry of components. Imports neither torch nor dgl."""
