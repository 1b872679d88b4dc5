"""Servers, gateways, receivers and builders for the tests."""
