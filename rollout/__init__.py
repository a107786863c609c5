"""A canary that reaches all customers by evidence alone: observe -> decide -> act -> record."""
