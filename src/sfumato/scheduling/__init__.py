"""Who runs next and where: the queue, the dispatcher and the engine hosts."""
