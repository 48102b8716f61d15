"""Models: routes, prices, token bounds and providers, one port for all of them."""
