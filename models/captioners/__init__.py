"""What writes texts for pictures: BLIP, any image-text-to-text model, or a server elsewhere."""
