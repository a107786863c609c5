"""The stores of the production profile as real processes on loopback, for `make production-up`.

Each module starts one store. `stores.py` puts them in order, `place.py` has their ports and passwords, and
`environment.py` the variables that configs/profiles/production.yaml reads. They are for this machine only: a
company has such stores already, and gives their addresses in the same variables.
"""
