"""One module a CNI plugin, each with the same functions; they see ports, never the shells behind them."""
