"""The commands of a chain, one file each; ``unlearnkit.chain`` has them as functions."""
