"""The second engine of `features build`: the queries of features/purchases.py, rendered for Spark."""
