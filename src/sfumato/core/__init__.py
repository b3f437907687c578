"""The words every other package speaks: requests, jobs, messages, errors. No torch, FastAPI or SQL."""
