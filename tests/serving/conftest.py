from support.served_bundle import bundle  # noqa: F401
