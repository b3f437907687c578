"""Sampling rules, sigma schedules and noise, for one picture at a time. Nothing here knows a network or a batch."""
