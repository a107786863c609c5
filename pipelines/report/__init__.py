"""The reports: the page of one run (`run_page.py`), and the page of the whole loop (`loop_page.py`)."""
