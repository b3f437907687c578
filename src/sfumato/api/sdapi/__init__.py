"""The AUTOMATIC1111 dialect: `/sdapi/v1` and `/internal`, as docs/sdapi.md describes it."""
