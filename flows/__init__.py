"""Occasions: what runs when and where. The only room that knows Ray and Prefect."""
