"""Model families: from weights on disk to a denoiser, a text encoder and a latent codec."""
