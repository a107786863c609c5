"""Retraining under control: the governor decides, the ledger records, the runner resumes after a crash."""
