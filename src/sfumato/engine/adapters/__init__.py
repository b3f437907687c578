"""LoRAs: small changes to a network's layers, computed beside them and never merged into shared weights."""
