"""A real cluster, for tests/cluster: what it has, stores, two small models, and a service in its own
namespace."""
