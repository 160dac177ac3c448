"""Checks of the promises of this program on the machine it runs on."""
