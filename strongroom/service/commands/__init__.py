"""The commands of `strongroom`, beside those in service/cli.py."""
