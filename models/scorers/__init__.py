"""What scores texts against pictures: BLIP's filter, or any dual encoder."""
