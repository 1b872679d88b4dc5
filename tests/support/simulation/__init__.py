"""A simulation of years of subscriptions."""
