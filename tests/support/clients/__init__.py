"""Scripts that call a server with each standard client, run in processes of their own."""
