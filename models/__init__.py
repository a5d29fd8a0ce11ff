"""The BLIP network and its roles: what captions images and scores texts against them."""
