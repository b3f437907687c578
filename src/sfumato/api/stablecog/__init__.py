"""The Stablecog dialect: `/v1`, as docs/stablecog.md describes it."""
