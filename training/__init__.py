"""The recipe of the built-in model: data, autoencoder, denoiser, evaluation, export."""
