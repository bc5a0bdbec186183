"""Agents of other networks: their cards read and verified, their protocol spoken, their calls made.

Whatever comes from there is data: measured, cleaned and passed on, never obeyed.
"""
