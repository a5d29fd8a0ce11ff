"""The stages of a flow as plain functions, which know no Prefect."""
